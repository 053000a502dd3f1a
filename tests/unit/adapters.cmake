refit_test(python_regex_test SOURCES python_regex_test.cc DEPS refit::plan LABELS unit)
refit_test(gemma4_moe_plan_test SOURCES gemma4_moe_plan_test.cc DEPS refit::plan LABELS unit)
refit_test(native_range_writer_test SOURCES native_range_writer_test.cc DEPS refit::plan LABELS unit)
if(REFIT_WITH_TORCH)
  refit_test(gemma4_moe_state_dict_adapter_test STANDARD 17
    SOURCES gemma4_moe_state_dict_adapter_test.cc
    DEPS refit::torch_adapters LABELS unit)
  refit_test(torch_tensor_test STANDARD 17 SOURCES torch_tensor_test.cc DEPS refit::torch_adapters LABELS unit)
endif()
