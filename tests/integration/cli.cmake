# The command line as a user runs it: exit codes, stdout, stderr, files; offline and against a real service.
if(REFIT_WITH_TORCH)
  refit_test(cli_test
    SOURCES cli_test.cc cli_service_test.cc subprocess.cc
    DEPS refit::client refit::native_source refit::safetensors nlohmann_json::nlohmann_json
    LABELS integration TIMEOUT 600)
  add_dependencies(cli_test refit_cli refit_server_main)
endif()
refit_test(cli_fleet_test
  SOURCES cli_fleet_test.cc service_process.cc subprocess.cc
  DEPS refit::client nlohmann_json::nlohmann_json LABELS integration)
add_dependencies(cli_fleet_test refit_cli refit_server_main)
