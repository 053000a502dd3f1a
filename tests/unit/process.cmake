refit_test(process_test SOURCES process/fork_guard_test.cc process/line_writer_test.cc DEPS refit::process LABELS unit)
