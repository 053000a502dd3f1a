// from_hf for bad input: never a half or wrong result.
#include "common/adapters/from_hf_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/adapters/adapter_registry.h"
#include "common/adapters/family_reader.h"

namespace refit {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using Specs = std::vector<TensorSpec>;

const std::string kExperts = "model.layers.3.mlp.experts.";

// Two experts of width 4 in a model of width 6, and a norm.
Specs Qwen() {
  Specs specs;
  for (const char* expert : {"0", "1"}) {
    specs.push_back({absl::StrCat(kExperts, expert, ".gate_proj.weight"), DType::kBF16, {4, 6}});
    specs.push_back({absl::StrCat(kExperts, expert, ".up_proj.weight"), DType::kBF16, {4, 6}});
    specs.push_back({absl::StrCat(kExperts, expert, ".down_proj.weight"), DType::kBF16, {6, 4}});
  }
  specs.push_back({"model.norm.weight", DType::kBF16, {6}});
  return specs;
}

absl::StatusOr<FromHfPlan> Plan(const Specs& hf, const char* adapter = "qwen3_moe",
                                const AdapterOptions& options = {}) {
  return PlanFromHf(adapter, options, hf, std::nullopt);
}

std::string Error(const Specs& hf, const char* adapter = "qwen3_moe", const AdapterOptions& options = {}) {
  const absl::Status status = Plan(hf, adapter, options).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  return std::string(status.message());
}

Specs Without(const std::string& name) {
  Specs specs;
  for (TensorSpec& spec : Qwen()) {
    if (spec.name != name) specs.push_back(std::move(spec));
  }
  return specs;
}

Specs With(TensorSpec spec) {
  Specs specs = Without(spec.name);
  specs.push_back(std::move(spec));
  return specs;
}

TEST(FromHfPlan, FindsNativeTensorsInTheOrderOfTheirFirstParts) {
  const FromHfPlan plan = Plan(Qwen()).value();
  EXPECT_EQ(plan.forward.native, (Specs{{kExperts + "gate_and_up_projs", DType::kBF16, {2, 6, 8}},
                                        {kExperts + "down_projs", DType::kBF16, {2, 4, 6}},
                                        {"model.norm.weight", DType::kBF16, {6}}}));
  EXPECT_FALSE(plan.changes_nothing);
}

TEST(FromHfPlan, AMissingExpertIsNamed) {
  EXPECT_THAT(Error(Without(kExperts + "0.up_proj.weight")),
              AllOf(HasSubstr(kExperts + "0.up_proj.weight BF16 [4, 6] is missing"), HasSubstr("gate_and_up_projs")));
  EXPECT_THAT(Error(Without(kExperts + "0.down_proj.weight")), HasSubstr(kExperts + "0.down_proj.weight"));
}

TEST(FromHfPlan, TheLastExpertMayBeMissingInPart) {
  EXPECT_THAT(Error(Without(kExperts + "1.down_proj.weight")),
              AllOf(HasSubstr("2 experts"), HasSubstr("those of 1"), HasSubstr(kExperts + "down_projs")));
}

TEST(FromHfPlan, TheLastExpertMayBeMissingWholly) {
  Specs specs = Qwen();
  specs.erase(specs.begin() + 3, specs.begin() + 6);
  EXPECT_TRUE(Plan(specs).ok());
  EXPECT_THAT(Error(specs, "qwen3_moe", {{"experts", "2"}}), HasSubstr("2 experts"));
}

TEST(FromHfPlan, AllOfOneKindMayBeMissing) {
  Specs specs = Without(kExperts + "0.up_proj.weight");
  specs.erase(specs.begin() + 3);
  EXPECT_THAT(Error(specs), HasSubstr(kExperts + "0.up_proj.weight BF16 [4, 6] is missing"));
}

TEST(FromHfPlan, AnExpertsNumberIsPlain) {
  EXPECT_THAT(Error(With({kExperts + "01.up_proj.weight", DType::kBF16, {4, 6}})),
              AllOf(HasSubstr("experts.01.up_proj"), HasSubstr("no expert's number")));
  EXPECT_THAT(Error(With({kExperts + "99999999999999999999.up_proj.weight", DType::kBF16, {4, 6}})),
              HasSubstr("no expert's number"));
  EXPECT_THAT(Error(With({kExperts + "9223372036854775807.up_proj.weight", DType::kBF16, {4, 6}})),
              HasSubstr("no expert's number"));
  EXPECT_THAT(Error(With({kExperts + "2147483647.up_proj.weight", DType::kBF16, {4, 6}})), HasSubstr("experts"));
}

TEST(FromHfPlan, OddWidthsAreNamed) {
  EXPECT_THAT(Error(With({kExperts + "1.up_proj.weight", DType::kBF16, {5, 6}})),
              AllOf(HasSubstr(kExperts + "1.up_proj.weight BF16 [5, 6]"), HasSubstr("expected [4, 6]")));
  EXPECT_THAT(Error(With({kExperts + "0.up_proj.weight", DType::kBF16, {6}})), HasSubstr("layers.3"));
  Specs odd = Qwen();
  for (size_t up : {1, 4}) odd[up].shape = {5, 6};
  EXPECT_THAT(Error(odd), HasSubstr("does not divide"));
}

TEST(FromHfPlan, OneNativeTensorHasOneDtype) {
  EXPECT_THAT(Error(With({kExperts + "1.up_proj.weight", DType::kF32, {4, 6}})),
              AllOf(HasSubstr(kExperts + "1.up_proj.weight F32"), HasSubstr("one dtype")));
}

TEST(FromHfPlan, WhatIsLeftOfAnExpertIsRefused) {
  for (const char* name : {"0.gate_proj.bias", "0.gate_proj.lora_C.weight", "gate_up_proj", "down_proj"}) {
    EXPECT_THAT(Error(With({kExperts + name, DType::kBF16, {4, 6}})), AllOf(HasSubstr(name), HasSubstr("no rule")));
  }
  for (const char* name : {"0.gate_proj.weight_scale_inv", "0.gate_proj.weight_packed", "gate_up_proj_blocks"}) {
    EXPECT_THAT(Error(With({kExperts + name, DType::kBF16, {4, 6}})), AllOf(HasSubstr(name), HasSubstr("quantised")));
  }
}

TEST(FromHfPlan, AnotherPrefixIsRefused) {
  for (const char* prefix : {"", "model.language_model.", "base_model.model.model."}) {
    Specs specs = Qwen();
    for (TensorSpec& spec : specs) spec.name = absl::StrCat(prefix, spec.name.substr(6));
    EXPECT_THAT(Error(specs), AllOf(HasSubstr(specs.front().name), HasSubstr("prefix"))) << prefix;
  }
  Specs bare = Qwen();
  for (TensorSpec& spec : bare) spec.name = spec.name.substr(6);
  EXPECT_EQ(Plan(bare, "qwen3_moe", {{"uses_model_prefix", "false"}}).value().forward.native.front().name,
            "layers.3.mlp.experts.gate_and_up_projs");
  EXPECT_THAT(Error(Qwen(), "qwen3_omni_moe"), HasSubstr(Qwen().front().name));
}

TEST(FromHfPlan, NativeTensorsAreNoHfTensors) {
  EXPECT_THAT(Error({{kExperts + "gate_and_up_projs", DType::kBF16, {2, 6, 8}}}), HasSubstr("gate_and_up_projs"));
  EXPECT_THAT(Error({{"model.layers.0.linear_attn._fp32_params.A_log", DType::kF32, {4}}}, "qwen3_next"),
              HasSubstr("_fp32_params"));
  EXPECT_THAT(Error({{"mlp.gate.weight", DType::kBF16, {4, 6}}}, "gpt_oss"), HasSubstr("would be changed itself"));
}

TEST(FromHfPlan, UnrelatedNamesPass) {
  const FromHfPlan plan = Plan({{"lm_head.weight", DType::kBF16, {8, 6}}, {"strange", DType::kU8, {}}}).value();
  EXPECT_EQ(plan.forward.native.size(), 2u);
  EXPECT_TRUE(plan.changes_nothing);
}

TEST(FromHfPlan, TheExpertsDtypeIsForExperts) {
  Specs hf = Qwen();
  hf.push_back({"model.layers.3.linear_attn.A_log", DType::kBF16, {4}});
  const FromHfPlan plan = PlanFromHf("qwen3_next", {}, hf, DType::kF32).value();
  EXPECT_EQ(plan.dtypes, (std::vector<DType>{DType::kF32, DType::kF32, DType::kBF16, DType::kF32}));
}

TEST(FromHfPlan, AFoldedShapeNeedsTheNumberOfExperts) {
  const Specs hf = {{kExperts + "lora_A.weight", DType::kBF16, {6, 5}},
                    {kExperts + "lora_B.weight", DType::kBF16, {5, 6}}};
  EXPECT_THAT(Error(hf), AllOf(HasSubstr("lora_A.weight"), HasSubstr("how many experts")));
  EXPECT_THAT(Error(hf, "qwen3_moe", {{"experts", "4"}}), HasSubstr("lora_A.weight"));
  EXPECT_EQ(Plan(hf, "qwen3_moe", {{"experts", "3"}}).value().forward.native,
            (Specs{{kExperts + "lora_down_B", DType::kBF16, {3, 2, 5}},
                   {kExperts + "lora_down_A", DType::kBF16, {3, 5, 2}}}));
}

TEST(FromHfPlan, AutoKnowsNativeNamesOnly) { EXPECT_THAT(Error(Qwen(), "auto"), HasSubstr("name the adapter")); }

absl::Status Read(const char* rule) {
  const std::string text = absl::StrCat("name = \"lossy\"\n", rule);
  return ReadFamily(text, "lossy.toml", [](absl::string_view) { return std::nullopt; }).status();
}

TEST(FromHfPlan, NativeNamesBelongToParts) {
  EXPECT_THAT(std::string(Read("[[rule]]\nsuffix = \"a\"\nto = \"b\"\nnative = \"a\"\n").message()),
              HasSubstr("'native' belongs to 'parts'"));
}

}  // namespace
}  // namespace refit
