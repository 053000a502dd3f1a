refit_test(cast_push_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/cast_push_test.cc DEPS refit::server refit::client
           LABELS integration)
