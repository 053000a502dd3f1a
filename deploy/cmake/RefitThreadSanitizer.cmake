# Links tests/tsan/ into every program. It shows ThreadSanitizer the locks of packaged Abseil and the thread handoffs of
# packaged gRPC.
add_library(refit_tsan OBJECT ${PROJECT_SOURCE_DIR}/tests/tsan/absl_mutex.cc
  ${PROJECT_SOURCE_DIR}/tests/tsan/grpc_handoff.cc)
target_include_directories(refit_tsan PRIVATE ${PROJECT_SOURCE_DIR})
set_target_properties(refit_tsan PROPERTIES CXX_STANDARD 20 CXX_STANDARD_REQUIRED ON)
target_compile_options(refit_tsan PRIVATE -fsanitize=thread -Wno-tsan)
target_link_libraries(refit_tsan PRIVATE absl::synchronization gRPC::grpc++)
target_sources(refit_flags INTERFACE
  $<$<STREQUAL:$<TARGET_PROPERTY:TYPE>,EXECUTABLE>:$<TARGET_OBJECTS:refit_tsan>>)
target_link_libraries(refit_flags INTERFACE ${CMAKE_DL_LIBS})
# Messages with maps have the layout of packaged Protobuf.
configure_file(${PROJECT_SOURCE_DIR}/tests/tsan/map_field.h ${PROJECT_BINARY_DIR}/proto/google/protobuf/map_field.h COPYONLY)
