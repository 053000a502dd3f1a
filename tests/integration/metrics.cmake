# What Prometheus scrapes, what server/METRICS.md says of it, and what the dashboard asks for.
refit_test(metrics_test
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/metrics_test.cc ${CMAKE_CURRENT_LIST_DIR}/subprocess.cc
  DEPS refit::server refit::client nlohmann_json::nlohmann_json LABELS integration)
add_dependencies(metrics_test refit_server_main)
