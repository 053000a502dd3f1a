refit_test(sharded_push_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/sharded_push_test.cc DEPS refit::server refit::client
           LABELS integration)
refit_test(sliced_pull_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/sliced_pull_test.cc DEPS refit::server refit::client
           LABELS integration)
if(REFIT_WITH_TORCH)
  refit_test(sharded_property_test STANDARD 17 SOURCES ${CMAKE_CURRENT_LIST_DIR}/sharded_property_test.cc
             DEPS refit::torch_server refit::torch_client LABELS integration)
endif()
refit_test(striped_push_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/striped_push_test.cc
           DEPS refit_fault_support refit::server refit::client LABELS integration)
