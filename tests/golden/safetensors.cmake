# Odd files, as the reference package reads them and what this project writes. deploy/get_torch.sh brings the package.
refit_executable(safetensors_probe OUTPUT safetensors-probe SOURCES safetensors/probe.cc
  DEPS refit::safetensors nlohmann_json::nlohmann_json absl::strings)
set(refit_safetensors_python ${PROJECT_SOURCE_DIR}/build/torch-venv/bin/python)
if(NOT EXISTS ${refit_safetensors_python})
  set(refit_safetensors_python python3)
endif()
add_test(NAME safetensors_reference_test COMMAND ${refit_safetensors_python} -B
  ${CMAKE_CURRENT_SOURCE_DIR}/safetensors/differential_test.py ${PROJECT_BINARY_DIR}/bin/safetensors-probe)
set_tests_properties(safetensors_reference_test PROPERTIES LABELS golden TIMEOUT 120 SKIP_RETURN_CODE 77)
