refit_test(limited_resources_test
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/limited_resources_test.cc ${CMAKE_CURRENT_LIST_DIR}/service_process.cc
          ${CMAKE_CURRENT_LIST_DIR}/subprocess.cc
  DEPS refit::client refit::server LABELS integration)
add_dependencies(limited_resources_test refit_server_main)
