refit_test(delta_pull_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/delta_pull_test.cc DEPS refit::server refit::client
           LABELS integration)
refit_test(delta_worker_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/delta_worker_test.cc DEPS refit::server refit::client
           LABELS integration)
refit_test(in_place_worker_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/in_place_worker_test.cc DEPS refit::server refit::client
           LABELS integration)
