# What the reference adapters of all families made of the same inputs, bit for bit (tests/data/golden/families).
refit_test(family_streaming_golden_test
  SOURCES families/streaming_golden_test.cc families/family_case.cc
  DEPS refit::plan refit::safetensors nlohmann_json::nlohmann_json LABELS golden)
# The way back: what the references' from_hf made of their outputs, and every case there and back.
refit_test(family_from_hf_golden_test
  SOURCES families/from_hf_golden_test.cc families/family_case.cc
  DEPS refit::offline_to_hf nlohmann_json::nlohmann_json LABELS golden)
