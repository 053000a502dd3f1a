refit_test(python_regex_test SOURCES adapters/python_regex_test.cc DEPS refit::plan LABELS unit)
refit_test(gemma4_moe_plan_test SOURCES adapters/gemma4_moe_plan_test.cc DEPS refit::plan LABELS unit)
refit_test(family_adapter_test SOURCES adapters/family_adapter_test.cc DEPS refit::plan LABELS unit)
refit_test(from_hf_plan_test SOURCES adapters/from_hf_plan_test.cc DEPS refit::plan LABELS unit)
refit_test(offline_from_hf_test SOURCES adapters/offline_from_hf_test.cc DEPS refit::offline_to_hf LABELS unit)
refit_test(prefix_check_test SOURCES adapters/prefix_check_test.cc DEPS refit::plan LABELS unit)
refit_test(padding_test SOURCES adapters/padding_test.cc DEPS refit::offline_to_hf LABELS unit)
refit_test(layout_rules_test SOURCES adapters/layout_rules_test.cc DEPS refit::plan LABELS unit)
refit_test(native_range_writer_test SOURCES adapters/native_range_writer_test.cc DEPS refit::plan LABELS unit)
if(REFIT_WITH_TORCH)
  refit_test(torch_tensor_test STANDARD 17 SOURCES adapters/torch_tensor_test.cc DEPS refit::torch_adapters LABELS unit)
  refit_test(gemma4_moe_state_dict_adapter_test STANDARD 17
    SOURCES adapters/gemma4_moe_state_dict_adapter_test.cc
    DEPS refit::torch_adapters LABELS unit)
  refit_test(offline_convert_test STANDARD 17
    SOURCES adapters/offline_convert_test.cc
    DEPS refit::offline_convert LABELS unit)
endif()
