refit_test(relay_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/relay_test.cc DEPS refit::relay refit::server refit::client LABELS integration)
refit_test(relay_experts_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/relay_experts_test.cc DEPS refit::relay refit::server refit::client LABELS integration)
