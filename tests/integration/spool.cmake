# refit-server's folder on disk: killed, full, damaged, larger than memory.
refit_test(spool_process_test
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/spool_process_test.cc ${CMAKE_CURRENT_LIST_DIR}/service_process.cc
          ${CMAKE_CURRENT_LIST_DIR}/subprocess.cc
  DEPS refit::client LABELS integration TIMEOUT 300)
add_dependencies(spool_process_test refit_cli refit_server_main)
