# What the reference adapters of all families made of the same inputs, bit for bit (tests/data/golden/families).
refit_test(family_streaming_golden_test
  SOURCES families/streaming_golden_test.cc families/family_case.cc
  DEPS refit::plan refit::safetensors nlohmann_json::nlohmann_json LABELS golden)
