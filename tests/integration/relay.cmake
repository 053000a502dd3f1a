refit_test(relay_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/relay_test.cc DEPS refit::relay refit::server refit::client LABELS integration)
