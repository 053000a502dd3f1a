// Names with a prefix too many or too few are never half converted.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/adapters/adapter_registry.h"
#include "common/adapters/plan.h"

namespace refit {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// Layers as a trainer has them, with other prefixes.
std::vector<TensorSpec> Layers(const std::string& prefix, const std::string& segment = "mlp") {
  return {{prefix + "layers.3.self_attn.q_proj.weight", DType::kBF16, {6, 6}},
          {absl::StrCat(prefix, "layers.3.", segment, ".experts.gate_and_up_projs"), DType::kBF16, {4, 6, 10}},
          {absl::StrCat(prefix, "layers.3.", segment, ".experts.down_projs"), DType::kBF16, {4, 5, 6}},
          {"lm_head.weight", DType::kBF16, {8, 6}}};
}

absl::Status Plan(const char* adapter, const std::vector<TensorSpec>& native, const AdapterOptions& options = {}) {
  return PlanVersion(*FindAdapter(adapter, options).value(), native, {}).status();
}

constexpr const char* kRebuilding[] = {"qwen3_moe",  "glm4_moe",   "deepseek_v3",
                                       "qwen3_next", "minimax_m2", "qwen3_omni_moe"};

TEST(PrefixCheck, ExpertsAndOthersGoTogether) {
  for (const char* adapter : kRebuilding) {
    EXPECT_TRUE(Plan(adapter, Layers("model.")).ok()) << adapter;
    for (const char* prefix : {"", "policy.model.", "model.model.", "model.language_model.", "actor."}) {
      const absl::Status status = Plan(adapter, Layers(prefix));
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << adapter << " " << prefix;
      EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr("experts.gate_and_up_projs"), HasSubstr("q_proj"),
                                                       HasSubstr("rename them"), HasSubstr("uses_model_prefix=false")));
    }
  }
}

TEST(PrefixCheck, ItMayBeMeant) {
  for (const char* adapter : kRebuilding) {
    for (const char* prefix : {"", "model."}) {
      EXPECT_TRUE(Plan(adapter, Layers(prefix), {{"uses_model_prefix", "false"}}).ok()) << adapter;
    }
  }
}

TEST(PrefixCheck, SomeOfTheTensorsTellNothing) {
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_TRUE(Plan("qwen3_moe", {Layers("")[i]}).ok());
    EXPECT_TRUE(Plan("nemotron_v3", {Layers("model.", "mixer")[i]}).ok());
  }
}

TEST(PrefixCheck, NemotronsNames) {
  EXPECT_TRUE(Plan("nemotron_v3", Layers("model.", "mixer")).ok());
  EXPECT_TRUE(Plan("nemotron_v3", Layers("mtp.", "mixer")).ok());
  for (const char* prefix : {"", "policy.model."}) {
    EXPECT_THAT(std::string(Plan("nemotron_v3", Layers(prefix, "mixer")).message()), HasSubstr("rename them"))
        << prefix;
  }
  // Without experts, too.
  const absl::Status dense = Plan("nemotron_v3", {{"layers.0.mixer.in_proj.weight", DType::kBF16, {6, 6}}});
  EXPECT_THAT(std::string(dense.message()),
              AllOf(HasSubstr("layers.0.mixer"), HasSubstr("model.layers.0.mixer"), HasSubstr("rename them")));
}

TEST(PrefixCheck, AStepsNames) {
  EXPECT_TRUE(Plan("step3p5", Layers("model.", "moe")).ok());
  EXPECT_FALSE(Plan("step3p5", Layers("", "moe")).ok());
}

TEST(PrefixCheck, ACommonComponentThatHidesNames) {
  const std::vector<TensorSpec> native = {{"policy.embed_vision.patch_dense.weight", DType::kBF16, {6, 6}},
                                          {"policy.model.norm.weight", DType::kBF16, {6}}};
  EXPECT_THAT(std::string(Plan("gemma4_unified", native).message()),
              AllOf(HasSubstr("policy.embed_vision.patch_dense.weight"), HasSubstr("rename them")));
  EXPECT_TRUE(Plan("identity", native).ok());
}

// They keep what stands before, of all tensors alike.
TEST(PrefixCheck, FamiliesThatKeepPrefixesTakeAny) {
  for (const char* adapter : {"qwen3_vl_moe", "qwen3_5_moe", "gpt_oss"}) {
    for (const char* prefix : {"", "model.", "model.language_model."}) EXPECT_TRUE(Plan(adapter, Layers(prefix)).ok());
  }
}

}  // namespace
}  // namespace refit
