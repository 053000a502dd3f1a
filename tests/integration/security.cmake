refit_test(security_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/security_test.cc ${CMAKE_CURRENT_LIST_DIR}/subprocess.cc
           DEPS refit::server refit::client refit::certificates LABELS integration)
add_dependencies(security_test refit_cli refit_server_main)
