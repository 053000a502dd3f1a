# The real grpcurl against the real service, over reflection. Skipped, with the reason, where grpcurl cannot be had.
add_test(NAME grpcurl_test COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/grpcurl_test.sh ${PROJECT_BINARY_DIR}/bin)
set_tests_properties(grpcurl_test PROPERTIES LABELS integration TIMEOUT 180 SKIP_RETURN_CODE 77)
