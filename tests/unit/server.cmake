refit_test(version_store_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/version_store_test.cc DEPS refit::server LABELS unit)
refit_test(work_queue_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/work_queue_test.cc DEPS refit::server LABELS unit)
refit_test(event_log_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/event_log_test.cc DEPS refit::server LABELS unit)
refit_test(worker_registry_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/worker_registry_test.cc DEPS refit::server LABELS unit)
