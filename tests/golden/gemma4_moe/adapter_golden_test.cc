// Every golden case through the at::Tensor adapter, and through the offline conversion of files.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "common/adapters/gemma4_moe_state_dict_adapter.h"
#include "common/adapters/offline_convert.h"
#include "tests/golden/gemma4_moe/golden_case.h"

namespace refit {
namespace {

using ::testing::HasSubstr;

StateDict Load(const GoldenTensors& tensors) {
  StateDict state_dict;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const TensorSpec& spec = tensors.file().tensors()[i];
    state_dict.emplace_back(spec.name, TensorOnBytes(spec, tensors.file().data(i), tensors.shared_file()).value());
  }
  return state_dict;
}

absl::StatusOr<StateDict> ConvertEach(const Gemma4MoEStateDictAdapter& adapter, const GoldenCase& golden,
                                      const StateDict& native) {
  ConvertOptions options;
  options.exclude = PythonRegex::Compile(golden.exclude_key_regex).value();
  StateDict hf;
  for (const auto& [name, tensor] : native) {
    absl::StatusOr<StateDict> outputs = adapter.convert_single_tensor_to_hf(name, tensor, options);
    if (!outputs.ok()) return outputs.status();
    hf.insert(hf.end(), outputs->begin(), outputs->end());
  }
  return hf;
}

absl::StatusOr<StateDict> RunAdapter(const GoldenCase& golden) {
  const Gemma4MoEStateDictAdapter adapter({golden.experts}, golden.dtype);
  const StateDict input = Load(GoldenTensors(golden.input));
  if (golden.operation == "from_hf") return adapter.from_hf(input, golden.mesh);
  if (golden.operation == "to_hf") return adapter.to_hf(input, golden.exclude_key_regex);
  return ConvertEach(adapter, golden, input);
}

OfflineConvertOptions OptionsOf(const GoldenCase& golden) {
  OfflineConvertOptions options;
  options.mode = golden.operation == "from_hf" ? OfflineConvertOptions::Mode::kNative
                 : golden.operation == "to_hf" ? OfflineConvertOptions::Mode::kStateDict
                                               : OfflineConvertOptions::Mode::kPerTensor;
  options.config.n_routed_experts = golden.experts;
  options.dtype = golden.dtype;
  options.exclude_key_regex = golden.exclude_key_regex;
  options.mesh = golden.mesh;
  return options;
}

// What our error says where the reference raises.
std::string ExpectedMessage(const GoldenCase& golden) {
  const std::map<std::string, std::string> messages = {
      {"g_from_hf_missing_down5",
       "Incomplete expert weights for layers.0: missing down_proj. Available keys: per_expert_scale, gate_up_proj"},
      {"g_from_hf_missing_scale5", "Incomplete expert weights for layers.0: missing per_expert_scale"},
      {"g_convert_nolayer5", "expert tensor nolayer.moe.experts.down_projs has no \"layers.N.\" in its name"},
  };
  return messages.at(golden.id);
}

void ExpectError(const GoldenCase& golden, const absl::Status& status) {
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(ExpectedMessage(golden)));
}

class Golden : public ::testing::TestWithParam<GoldenCase> {};

TEST_P(Golden, TheAdapterEqualsTheReference) {
  const GoldenCase& golden = GetParam();
  const absl::StatusOr<StateDict> result = RunAdapter(golden);
  if (golden.output.empty()) return ExpectError(golden, result.status());
  ASSERT_TRUE(result.ok()) << result.status();

  const GoldenTensors expected(golden.output);
  EXPECT_EQ(result->size(), expected.size());
  std::vector<std::string> keys;
  for (const auto& [name, tensor] : *result) {
    keys.push_back(name);
    const TypedTensor host = OnHost(tensor).value();
    expected.ExpectHas(SpecOf(name, tensor).value(), BytesOf(host).value());
  }
  EXPECT_EQ(keys, golden.output_keys);
}

TEST_P(Golden, TheOfflineConversionEqualsTheReference) {
  const GoldenCase& golden = GetParam();
  const std::filesystem::path out = std::filesystem::path(::testing::TempDir()) / (golden.id + ".safetensors");
  std::filesystem::remove(out);
  const absl::Status status = ConvertFile(OptionsOf(golden), golden.input, out.string()).status();
  if (golden.output.empty()) {
    EXPECT_FALSE(std::filesystem::exists(out));
    return ExpectError(golden, status);
  }
  ASSERT_TRUE(status.ok()) << status;
  {
    const GoldenTensors result(out.string());
    const GoldenTensors expected(golden.output);
    EXPECT_EQ(result.size(), expected.size());
    std::vector<std::string> keys;
    for (size_t i = 0; i < result.size(); ++i) {
      keys.push_back(result.file().tensors()[i].name);
      expected.ExpectHas(result.file().tensors()[i], result.file().data(i));
    }
    EXPECT_EQ(keys, golden.output_keys);
  }
  std::filesystem::remove(out);
}

INSTANTIATE_TEST_SUITE_P(Gemma4Moe, Golden, ::testing::ValuesIn(GoldenCases()),
                         [](const auto& test) { return test.param.id; });

TEST(GetHfStateDictKeys, AreKnownFromShapesAlone) {
  for (const GoldenCase& golden : GoldenCases("to_hf")) {
    if (!golden.exclude_key_regex.empty()) continue;
    const GoldenTensors native(golden.input);
    const Gemma4MoEStateDictAdapter adapter({golden.experts}, golden.dtype);
    EXPECT_EQ(adapter.get_hf_state_dict_keys(native.file().tensors()).value(), golden.output_keys) << golden.id;
  }
}

TEST(GoldenCases, AreAllThere) { EXPECT_EQ(GoldenCases().size(), 49u); }

}  // namespace
}  // namespace refit
