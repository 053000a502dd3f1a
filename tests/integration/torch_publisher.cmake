if(REFIT_WITH_TORCH)
  refit_test(torch_publisher_test STANDARD 17 SOURCES ${CMAKE_CURRENT_LIST_DIR}/torch_publisher_test.cc
             DEPS refit::torch_server refit::torch_client LABELS integration)
endif()
