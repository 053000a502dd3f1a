refit_test(fork_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/fork_test.cc DEPS refit::server refit::client LABELS integration)
refit_test(unread_output_test
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/unread_output_test.cc ${CMAKE_CURRENT_LIST_DIR}/service_process.cc
          ${CMAKE_CURRENT_LIST_DIR}/subprocess.cc
  DEPS refit::client LABELS integration)
add_dependencies(unread_output_test refit_server_main refit_cli)
