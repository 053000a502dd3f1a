// The model's real names and shapes: what is planned from them is what the reference emitted.
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "common/adapters/adapter_registry.h"
#include "common/adapters/gemma4_moe_plan.h"
#include "test_paths.h"

namespace refit {
namespace {

const std::string kHfFolder = std::string(REFIT_TEST_DATA) + "/manifests/";
const std::string kNativeFolder = std::string(REFIT_TEST_DATA) + "/../../client/native/manifests/";

std::vector<TensorSpec> ReadManifest(const std::string& path) {
  std::ifstream file(path);
  std::vector<TensorSpec> specs;
  for (const nlohmann::json& tensor : nlohmann::json::parse(file)) {
    specs.push_back({tensor.at("name"), ParseDType(tensor.at("dtype").get<std::string>()).value(),
                     tensor.at("shape").get<Shape>()});
  }
  return specs;
}

std::vector<TensorSpec> HfOf(const VersionPlan& plan) {
  std::vector<TensorSpec> specs;
  for (const VersionPlan::Output& output : plan.outputs) specs.push_back(output.planned.hf);
  return specs;
}

uint64_t Bytes(const std::vector<TensorSpec>& specs) {
  uint64_t bytes = 0;
  for (const TensorSpec& spec : specs) bytes += spec.ByteSize();
  return bytes;
}

struct Model {
  const char* name;
  int64_t experts;
  size_t native_tensors;
  size_t hf_tensors;
};

class Manifest : public ::testing::TestWithParam<Model> {
 protected:
  std::vector<TensorSpec> native_ =
      ReadManifest(kNativeFolder + GetParam().name + std::string("_native_manifest.json"));
  std::vector<TensorSpec> hf_ = ReadManifest(kHfFolder + GetParam().name + std::string("_hf_manifest.json"));
};

TEST_P(Manifest, HasTheTensorsThatTheModelHas) {
  EXPECT_EQ(native_.size(), GetParam().native_tensors);
  EXPECT_EQ(hf_.size(), GetParam().hf_tensors);
}

TEST_P(Manifest, IsPlannedAsTheReferenceEmitsIt) {
  const VersionPlan plan = PlanVersion(*FindAdapter("gemma4_moe").value(), native_, {}).value();
  EXPECT_EQ(HfOf(plan), hf_);
}

TEST_P(Manifest, OfTheWholeStateDictIsTheSame) {
  const VersionPlan plan = PlanGemma4MoeToHf({GetParam().experts}, DType::kBF16, native_, /*exclude=*/nullptr).value();
  EXPECT_EQ(HfOf(plan), hf_);
}

TEST_P(Manifest, FromF32MastersIsTheSameAfterTheCast) {
  std::vector<TensorSpec> masters = native_;
  for (TensorSpec& spec : masters) spec.dtype = DType::kF32;
  ConvertOptions options;
  options.dtype = DType::kBF16;
  EXPECT_EQ(HfOf(PlanVersion(*FindAdapter("gemma4_moe").value(), masters, options).value()), hf_);
}

TEST_P(Manifest, ComesBackFromHf) {
  const std::vector<NativeOutput> outputs = PlanGemma4MoeFromHf({GetParam().experts}, DType::kBF16, hf_, {}).value();
  std::vector<TensorSpec> native;
  native.reserve(outputs.size());
  for (const NativeOutput& output : outputs) native.push_back(output.native);
  const auto by_name = [](const TensorSpec& a, const TensorSpec& b) { return a.name < b.name; };
  std::vector<TensorSpec> expected = native_;
  std::sort(native.begin(), native.end(), by_name);
  std::sort(expected.begin(), expected.end(), by_name);
  EXPECT_EQ(native, expected);
}

INSTANTIATE_TEST_SUITE_P(Models, Manifest,
                         ::testing::Values(Model{"gemma4_26b", 128, 984, 1014}, Model{"gemma4_tiny", 8, 159, 165}),
                         [](const auto& test) { return std::string(test.param.name); });

TEST(Gemma4Of26B, HasTheBytesThatTheModelHas) {
  EXPECT_EQ(Bytes(ReadManifest(kNativeFolder + "gemma4_26b_native_manifest.json")), 53'088'259'740u);
  EXPECT_EQ(Bytes(ReadManifest(kHfFolder + "gemma4_26b_hf_manifest.json")), 53'088'267'420u);
}

}  // namespace
}  // namespace refit
