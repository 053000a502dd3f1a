refit_test(delta_test
  SOURCES delta/delta_codec_test.cc delta/delta_composer_test.cc delta/delta_decoder_test.cc
  DEPS refit::delta refit::tensor
  LABELS unit)
find_package(Python3 COMPONENTS Interpreter)
if(Python3_FOUND)
  refit_test(delta_document_test SOURCES delta/delta_document_test.cc DEPS refit::delta LABELS unit)
  target_compile_definitions(delta_document_test PRIVATE
    REFIT_CONTRACT_PAGE="${PROJECT_SOURCE_DIR}/proto/README.md" REFIT_PYTHON="${Python3_EXECUTABLE}")
endif()
