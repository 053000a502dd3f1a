# Preloaded into programs; nothing links it. verify_asan_link_order=0 in CMakePresets.json lets the address sanitizer
# come after it.
add_library(refit_poor_file_system MODULE poor_file_system.cc)
set_target_properties(refit_poor_file_system PROPERTIES CXX_STANDARD 20 CXX_STANDARD_REQUIRED ON
  LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
refit_test(file_systems_test
  SOURCES file_systems_test.cc service_process.cc subprocess.cc
  DEPS refit::client refit::safetensors LABELS integration)
target_compile_definitions(file_systems_test PRIVATE REFIT_POOR_FILE_SYSTEM="$<TARGET_FILE:refit_poor_file_system>")
add_dependencies(file_systems_test refit_poor_file_system refit_cli refit_server_main)
