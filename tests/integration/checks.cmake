# No interval by the wall clock, anywhere.
add_test(NAME check_clocks COMMAND ${PROJECT_SOURCE_DIR}/deploy/check_clocks.sh)
set_tests_properties(check_clocks PROPERTIES LABELS unit)

# Includes run one way.
add_test(NAME check_rooms COMMAND ${PROJECT_SOURCE_DIR}/deploy/check_rooms.sh)
set_tests_properties(check_rooms PROPERTIES LABELS unit)
