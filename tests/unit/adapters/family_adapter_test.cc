// What tables say, beyond the golden cases: options, sizes, limits, and what is recognised.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/adapters/adapter_registry.h"
#include "common/adapters/layout_rules.h"
#include "common/adapters/recognise_family.h"
#include "common/adapters/size_expression.h"
#include "tests/support/temporary_folder.h"

namespace refit {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kGateAndUp[] = "model.layers.3.mlp.experts.gate_and_up_projs";
constexpr char kDown[] = "model.layers.3.mlp.experts.down_projs";

std::vector<PlannedOutput> Plan(const char* adapter, const TensorSpec& native, const ConvertOptions& options = {}) {
  return FindAdapter(adapter).value()->PlanTensor(native, options).value();
}

std::string Error(const char* adapter, const TensorSpec& native, const AdapterOptions& options = {}) {
  const absl::Status status = FindAdapter(adapter, options).value()->PlanTensor(native, {}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  return std::string(status.message());
}

TEST(FamilyAdapter, AnExpertKnowsItsNumberAndItsBox) {
  const std::vector<PlannedOutput> outputs = Plan("qwen3_moe", {kGateAndUp, DType::kBF16, {4, 6, 10}});
  ASSERT_EQ(outputs.size(), 8u);
  const PlannedOutput& up = outputs[5];
  EXPECT_EQ(up.hf, (TensorSpec{"model.layers.3.mlp.experts.2.up_proj.weight", DType::kBF16, {5, 6}}));
  EXPECT_EQ(up.transform, Transform::kTransposeLastTwo);
  EXPECT_EQ(up.expert, (ExpertPlace{2, 4}));
  EXPECT_EQ(up.box, (Box{{2, 0, 5}, {1, 6, 5}}));
  EXPECT_TRUE(up.native_experts);
  EXPECT_FALSE(up.experts);
}

TEST(FamilyAdapter, SizesAreCheckedOnlyIfTheyAreGiven) {
  const TensorSpec down = {kDown, DType::kBF16, {4, 5, 6}};
  EXPECT_EQ(Plan("qwen3_moe", down).size(), 4u);
  EXPECT_THAT(Error("qwen3_moe", down, {{"experts", "8"}}), AllOf(HasSubstr(kDown), HasSubstr("8 experts")));
  EXPECT_THAT(Error("qwen3_moe", down, {{"expert_width", "3"}}), AllOf(HasSubstr(kDown), HasSubstr("expected 3")));
  EXPECT_THAT(Error("qwen3_moe", {kGateAndUp, DType::kBF16, {4, 6, 7}}), HasSubstr("does not divide"));
}

TEST(FamilyAdapter, AClaimOfVeryManyExpertsCostsNothing) {
  EXPECT_THAT(Error("qwen3_moe", {kDown, DType::kBF16, {int64_t{1} << 40, 1, 1}}), HasSubstr("experts"));
  constexpr int kLayers = 32;
  std::vector<TensorSpec> native;
  native.reserve(kLayers);
  for (int layer = 0; layer < kLayers; ++layer) {
    native.push_back(
        {"model.layers." + std::to_string(layer) + ".mlp.experts.down_projs", DType::kBF16, {65536, 1, 1}});
  }
  const absl::Status status = PlanVersion(*FindAdapter("qwen3_moe").value(), native, {}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
}

TEST(FamilyAdapter, UnknownOptionsAndValuesAreRefusedWithThoseThatThereAre) {
  const absl::Status option = FindAdapter("nemotron_v3", {{"wings", "2"}}).status();
  EXPECT_EQ(option.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(option.message()), AllOf(HasSubstr("wings"), HasSubstr("activation"), HasSubstr("experts")));
  const absl::Status value = FindAdapter("nemotron_v3", {{"activation", "gelu"}}).status();
  EXPECT_THAT(std::string(value.message()), AllOf(HasSubstr("gelu"), HasSubstr("relu2")));
  EXPECT_EQ(FindAdapter("identity", {{"experts", "no"}}).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(FamilyAdapter, WhatAFamilyKeepsIsCastOnlyOnDemand) {
  const TensorSpec state = {"model.layers.0.mixer._fp32_params.A_log", DType::kBF16, {4}};
  const TensorSpec weight = {"model.layers.0.mixer.in_proj.weight", DType::kF32, {4}};
  ConvertOptions options;
  EXPECT_EQ(Plan("nemotron_v3", state, options)[0].hf.dtype, DType::kF32);
  options.dtype = DType::kBF16;
  EXPECT_EQ(Plan("nemotron_v3", state, options)[0].hf.dtype, DType::kF32);
  EXPECT_EQ(Plan("nemotron_v3", weight, options)[0].hf.dtype, DType::kBF16);
  options.keep_family_dtypes = false;
  EXPECT_EQ(Plan("nemotron_v3", state, options)[0].hf.dtype, DType::kBF16);
  options.keep_family_dtypes = true;
  EXPECT_EQ(Plan("identity", {"layers.0.weight_scale_inv", DType::kF32, {4}}, options)[0].hf.dtype, DType::kF32);
}

TEST(FamilyAdapter, RulesForExpertsSelectThoseOfTheirPart) {
  const std::vector<LayoutRule> second = {{LayoutRule::Scope::kExperts, "", 0, 1, 2, Split::kBalanced},
                                          {LayoutRule::Scope::kExperts, "", 1, 0, 5, Split::kCeil}};
  LayoutRules rules = LayoutRules::Compile(second).value();
  const std::vector<PlannedOutput> outputs = Plan("qwen3_moe", {kDown, DType::kBF16, {4, 5, 6}});
  EXPECT_EQ(rules.BoxOf(outputs[1]).value(), std::nullopt);
  EXPECT_EQ(rules.BoxOf(outputs[2]).value(), (Box{{0, 0}, {2, 5}}));  // its dimension 0 was 1 of the stack
  EXPECT_TRUE(rules.CheckAllApplied().ok());
  const std::vector<LayoutRule> columns = {{LayoutRule::Scope::kAny, "down_proj", 1, 1, 5, Split::kCeil}};
  EXPECT_EQ(LayoutRules::Compile(columns).value().BoxOf(outputs[0]).value(), (Box{{0, 1}, {6, 1}}));
}

TEST(SizeExpression, IsProductsAndQuotientsOfDimensions) {
  EXPECT_EQ(EvaluateSize("d2/2", {3, 4, 10}).value(), 5);
  EXPECT_EQ(EvaluateSize("d0 * d1", {3, 4}).value(), 12);
  EXPECT_EQ(EvaluateSize("16", {}).value(), 16);
  for (const char* bad : {"", "d", "d1+1", "d0*", "-1", "d0/0", "e1"})
    EXPECT_FALSE(CheckSizeExpression(bad).ok()) << bad;
  EXPECT_FALSE(EvaluateSize("d1/2", {3, 5}).ok());
  EXPECT_FALSE(EvaluateSize("d2", {3, 5}).ok());
  EXPECT_FALSE(EvaluateSize("d0*d0", {int64_t{1} << 40}).ok());
}

TEST(RecogniseFamily, SaysWhatItTookAndWhy) {
  const std::vector<TensorSpec> qwen = {{kGateAndUp, DType::kBF16, {4, 6, 10}},
                                        {"model.layers.3.self_attn.q_norm.weight", DType::kBF16, {4}}};
  const RecognisedFamily family = RecogniseFamily(qwen).value();
  EXPECT_EQ(family.name, "qwen3_moe");
  EXPECT_THAT(family.why, AllOf(HasSubstr(kGateAndUp), HasSubstr("q_norm")));
  EXPECT_EQ(RecogniseFamily({{"model.norm.weight", DType::kBF16, {4}}}).value().name, "identity");
}

TEST(RecogniseFamily, AsksWhereNamesDoNotTell) {
  const absl::Status unknown = RecogniseFamily({{"a.gate_and_up_projs", DType::kBF16, {4, 6, 10}}}).status();
  EXPECT_THAT(std::string(unknown.message()), AllOf(HasSubstr("a.gate_and_up_projs"), HasSubstr("refit adapters")));
  const absl::Status fused =
      RecogniseFamily({{"model.layers.0.mlp.experts.gate_up_proj", DType::kBF16, {4, 6, 10}}}).status();
  EXPECT_THAT(std::string(fused.message()), AllOf(HasSubstr("hf_v5_fused"), HasSubstr("identity")));
}

// Two families of a user's with the same names, for matrices and for stacks of them.
void AddTwins(const TemporaryFolder& folder) {
  for (const int rank : {2, 3}) {
    const std::string name = absl::StrCat("twin_of_rank_", rank);
    std::ofstream(folder.Path(name)) << "name = '" << name << "'\n[signs]\nall = ['^twin\\.w$']\n"
                                     << "[[rule]]\nexact = 'twin.w'\nrank = " << rank << "\nto = 'w'\n";
    ASSERT_TRUE(AddAdapterFile(folder.Path(name)).ok());
  }
}

TEST(RecogniseFamily, ShapesDecideWhereNamesDoNot) {
  const TemporaryFolder folder;
  AddTwins(folder);
  const RecognisedFamily stack = RecogniseFamily({{"twin.w", DType::kBF16, {4, 6, 10}}}).value();
  EXPECT_EQ(stack.name, "twin_of_rank_3");
  EXPECT_THAT(stack.why,
              AllOf(HasSubstr("not twin_of_rank_2: tensor twin.w BF16 [4, 6, 10]"), HasSubstr("2 dimensions")));
  EXPECT_EQ(RecogniseFamily({{"twin.w", DType::kBF16, {4, 6}}}).value().name, "twin_of_rank_2");
}

TEST(RecogniseFamily, AFamilyWhoseRulesRefuseTheShapesDoesNotFit) {
  const absl::Status status = RecogniseFamily({{kGateAndUp, DType::kBF16, {6, 10}},
                                               {"model.layers.3.self_attn.q_norm.weight", DType::kBF16, {4}}})
                                  .status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr("not qwen3_moe"), HasSubstr(kGateAndUp),
                                                   HasSubstr("[6, 10]"), HasSubstr("3 dimensions")));
}

TEST(RecogniseFamily, NamesOfWrappedModulesAreRefused) {
  for (const char* name : {"model.layers.0._checkpoint_wrapped_module.mlp.x", "model._orig_mod.layers.0.mlp.x",
                           "_fsdp_wrapped_module.model.norm.weight", "module.model.norm.weight"}) {
    const absl::Status status =
        PlanVersion(*FindAdapter("qwen3_moe").value(), {{name, DType::kBF16, {4}}}, {}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(name));
    EXPECT_TRUE(PlanVersion(*FindAdapter("identity").value(), {{name, DType::kBF16, {4}}}, {}).ok());
  }
}

TEST(NearMisses, AreTold) {
  const VersionPlan plan =
      PlanVersion(*FindAdapter("qwen3_moe").value(), {{"experts.down_projs", DType::kBF16, {4, 5, 6}}}, {}).value();
  EXPECT_THAT(NearMisses("qwen3_moe", plan), ElementsAre(HasSubstr("experts.down_projs")));
}

}  // namespace
}  // namespace refit
