refit_test(tp_rules_test
  SOURCES cli/tp_rules_test.cc ${PROJECT_SOURCE_DIR}/client/cli/tp_rules.cc
  DEPS refit::plan refit::safetensors
  LABELS unit)
