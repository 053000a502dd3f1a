# The reference package's readings of odd files, and of what this project writes; shards that torch's own writer saved;
# what public reports tell of checkpoints. deploy/get_torch.sh brings the packages.
refit_executable(safetensors_probe OUTPUT safetensors-probe SOURCES safetensors/probe.cc
  DEPS refit::safetensors nlohmann_json::nlohmann_json absl::strings)
set(refit_safetensors_python ${PROJECT_SOURCE_DIR}/build/torch-venv/bin/python)
if(NOT EXISTS ${refit_safetensors_python})
  set(refit_safetensors_python python3)
endif()

# refit_safetensors_test(<name> <script> <argument>)
function(refit_safetensors_test name script argument)
  add_test(NAME ${name} COMMAND ${refit_safetensors_python} -B ${CMAKE_CURRENT_SOURCE_DIR}/safetensors/${script} ${argument})
  set_tests_properties(${name} PROPERTIES LABELS golden TIMEOUT 120 SKIP_RETURN_CODE 77)
endfunction()
refit_safetensors_test(safetensors_reference_test differential_test.py ${PROJECT_BINARY_DIR}/bin/safetensors-probe)
if(REFIT_WITH_TORCH)
  refit_safetensors_test(checkpoint_reports_test reports_test.py ${PROJECT_BINARY_DIR}/bin)
  refit_safetensors_test(safetensors_dcp_test dcp_test.py ${PROJECT_BINARY_DIR}/bin)
endif()
