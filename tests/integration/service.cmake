refit_test(bad_input_wire_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/bad_input_wire_test.cc DEPS refit::server refit::client LABELS integration)
refit_test(end_to_end_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/end_to_end_test.cc DEPS refit::server refit::client refit::native_source
           LABELS integration)
refit_test(shutdown_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/shutdown_test.cc DEPS refit::server refit::client refit::health_proto
           LABELS integration)
refit_test(streaming_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/streaming_test.cc DEPS refit::server refit::client
           LABELS integration)
refit_test(shared_memory_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/shared_memory_test.cc DEPS refit::server refit::client
           LABELS integration)
refit_test(watch_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/watch_test.cc DEPS refit::server refit::client LABELS integration)
refit_test(limits_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/limits_test.cc DEPS refit::server refit::client LABELS integration)
refit_test(mutate_after_write_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/mutate_after_write_test.cc DEPS refit::server refit::client
           LABELS integration)
refit_test(two_trainers_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/two_trainers_test.cc DEPS refit::server refit::client
           LABELS integration)
refit_test(grpc_holes_test
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/grpc_holes_test.cc ${CMAKE_CURRENT_LIST_DIR}/service_process.cc
          ${CMAKE_CURRENT_LIST_DIR}/subprocess.cc
  DEPS refit::client refit::certificates LABELS integration)
add_dependencies(grpc_holes_test refit_server_main)
refit_test(listen_test
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/listen_test.cc ${CMAKE_CURRENT_LIST_DIR}/service_process.cc
          ${CMAKE_CURRENT_LIST_DIR}/subprocess.cc
  DEPS refit::server refit::client LABELS integration)
add_dependencies(listen_test refit_server_main)
refit_executable(mapped_peer OUTPUT mapped-peer SOURCES ${CMAKE_CURRENT_LIST_DIR}/mapped_peer.cc DEPS refit::client)
refit_test(passed_descriptors_test
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/passed_descriptors_test.cc ${CMAKE_CURRENT_LIST_DIR}/service_process.cc
          ${CMAKE_CURRENT_LIST_DIR}/subprocess.cc
  DEPS refit::server refit::client LABELS integration)
add_dependencies(passed_descriptors_test refit_server_main mapped_peer)
