refit_test(tp_rules_test
  SOURCES cli/tp_rules_test.cc ${PROJECT_SOURCE_DIR}/client/cli/options/tp_rules.cc
  DEPS refit::plan refit::limits
  LABELS unit)
refit_test(suggestion_test SOURCES cli/suggestion_test.cc DEPS refit::terminal LABELS unit)
refit_test(table_test
  SOURCES cli/table_test.cc ${PROJECT_SOURCE_DIR}/client/cli/terminal/table.cc
  DEPS refit::tensor refit::terminal
  LABELS unit)
refit_test(help_formatter_test SOURCES cli/help_formatter_test.cc DEPS refit::terminal LABELS unit)
