# What the reference adapter made of the same inputs, bit for bit (tests/data/golden/cases.json).
refit_test(gemma4_moe_manifest_golden_test
  SOURCES gemma4_moe/manifest_golden_test.cc
  DEPS refit::plan nlohmann_json::nlohmann_json LABELS golden)
refit_test(gemma4_moe_streaming_golden_test
  SOURCES gemma4_moe/streaming_golden_test.cc gemma4_moe/golden_case.cc
  DEPS refit::plan refit::safetensors nlohmann_json::nlohmann_json LABELS golden)
if(REFIT_WITH_TORCH)
  refit_test(gemma4_moe_golden_test STANDARD 17
    SOURCES gemma4_moe/adapter_golden_test.cc gemma4_moe/golden_case.cc
    DEPS refit::offline_convert nlohmann_json::nlohmann_json LABELS golden)
endif()
