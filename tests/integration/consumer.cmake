# Another CMake project finds and uses the installed client library.
set(consumer_flags "${CMAKE_CXX_FLAGS} ${CMAKE_CXX_FLAGS_${CMAKE_BUILD_TYPE}}")
if(REFIT_SANITIZE)
  string(APPEND consumer_flags " -fsanitize=${REFIT_SANITIZE}")
endif()
if(REFIT_COVERAGE)
  string(APPEND consumer_flags " --coverage")
endif()
add_test(NAME consumer_test
  COMMAND ${PROJECT_SOURCE_DIR}/tests/consumer/run.sh ${PROJECT_BINARY_DIR} -G ${CMAKE_GENERATOR}
          -DCMAKE_CXX_COMPILER=${CMAKE_CXX_COMPILER} -DCMAKE_CXX_FLAGS=${consumer_flags})
set_tests_properties(consumer_test PROPERTIES LABELS integration TIMEOUT 300)
