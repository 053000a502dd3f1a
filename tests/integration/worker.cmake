refit_test(worker_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/worker_test.cc DEPS refit::server refit::client LABELS integration)
refit_test(fleet_truth_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/fleet_truth_test.cc DEPS refit::server refit::client LABELS integration)
