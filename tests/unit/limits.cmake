refit_test(limits_unit_test SOURCES limits/host_limits_test.cc limits/process_limits_test.cc DEPS refit::limits refit::tensor
           LABELS unit)
