# No interval by the wall clock, anywhere.
add_test(NAME check_clocks COMMAND ${PROJECT_SOURCE_DIR}/deploy/check_clocks.sh)
set_tests_properties(check_clocks PROPERTIES LABELS unit)
