#include "common/adapters/offline_from_hf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "common/safetensors/safetensors.h"
#include "tests/support/temporary_folder.h"

namespace refit {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct Tensor {
  std::string name;
  Shape shape;
  std::vector<float> values;
};

absl::Span<const std::byte> BytesOf(const std::vector<float>& values) {
  return {reinterpret_cast<const std::byte*>(values.data()), values.size() * sizeof(float)};
}

class OfflineFromHf : public ::testing::Test {
 protected:
  void Write(const std::vector<Tensor>& tensors) const {
    std::vector<TensorSpec> specs;
    specs.reserve(tensors.size());
    for (const Tensor& tensor : tensors) specs.push_back({tensor.name, DType::kF32, tensor.shape});
    const auto writer = SafetensorsWriter::Create(in_, specs).value();
    for (size_t i = 0; i < tensors.size(); ++i) {
      ASSERT_TRUE(writer->WriteAt(i, 0, BytesOf(tensors[i].values)).ok());
    }
    ASSERT_TRUE(writer->Commit().ok());
  }

  absl::StatusOr<ConvertedFile> Convert(const char* adapter) const {
    OfflineConvertOptions options = options_;
    options.adapter = adapter;
    return ConvertFileFromHf(options, in_, out_);
  }

  std::string Error(const char* adapter) const {
    const absl::Status status = Convert(adapter).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(folder_.Names(), ElementsAre("in"));
    return std::string(status.message());
  }

  std::vector<float> Values(const std::string& name) const {
    const auto file = SafetensorsFile::Open(out_).value();
    for (size_t i = 0; i < file->tensors().size(); ++i) {
      if (file->tensors()[i].name != name) continue;
      std::vector<float> values(file->data(i).size() / sizeof(float));
      std::memcpy(values.data(), file->data(i).data(), file->data(i).size());
      return values;
    }
    return {};
  }

  OfflineConvertOptions options_;
  const TemporaryFolder folder_;
  const std::string in_ = folder_.Path("in");
  const std::string out_ = folder_.Path("out");
};

TEST_F(OfflineFromHf, EachExpertIsTransposedIntoItsPlace) {
  Write({{"model.layers.0.mlp.experts.1.up_proj.weight", {1, 2}, {6, 7}},
         {"model.layers.0.mlp.experts.0.up_proj.weight", {1, 2}, {2, 3}},
         {"model.layers.0.mlp.experts.0.gate_proj.weight", {1, 2}, {0, 1}},
         {"model.layers.0.mlp.experts.1.gate_proj.weight", {1, 2}, {4, 5}}});
  const ConvertedFile made = Convert("qwen3_moe").value();
  EXPECT_EQ(made.tensors, 1u);
  EXPECT_THAT(made.note, HasSubstr("2 experts"));
  EXPECT_THAT(Values("model.layers.0.mlp.experts.gate_and_up_projs"), ElementsAre(0, 2, 1, 3, 4, 6, 5, 7));
}

// A rank of 2, 2 experts: [K, r * E] becomes [E, K, r].
TEST_F(OfflineFromHf, FoldedExpertsAreUnfolded) {
  Write({{"model.layers.0.mlp.experts.lora_B.weight", {1, 4}, {0, 1, 2, 3}}});
  options_.adapter_options["experts"] = "2";
  ASSERT_TRUE(Convert("qwen3_moe").ok());
  EXPECT_THAT(Values("model.layers.0.mlp.experts.lora_down_A"), ElementsAre(0, 2, 1, 3));
}

std::vector<Tensor> Lora(float up) {
  return {{"model.layers.0.mlp.experts.0.gate_proj.lora_A.weight", {1, 2}, {1, 2}},
          {"model.layers.0.mlp.experts.0.up_proj.lora_A.weight", {1, 2}, {1, up}}};
}

TEST_F(OfflineFromHf, WhatTwoTensorsShareMustBeTheSame) {
  Write(Lora(3));
  EXPECT_THAT(Error("deepseek_v3"), AllOf(HasSubstr("gate_proj.lora_A"), HasSubstr("up_proj.lora_A"),
                                          HasSubstr("differ"), HasSubstr("lora_gate_and_up_A")));
  Write(Lora(2));
  ASSERT_TRUE(Convert("deepseek_v3").ok());
  EXPECT_THAT(Values("model.layers.0.mlp.experts.lora_gate_and_up_A"), ElementsAre(1, 2));
}

std::vector<Tensor> Scaled(float scale) {
  return {{"model.decoder.layers.0.experts.down_proj", {1, 2, 1}, {1, 2}},
          {"model.decoder.layers.0.router.per_expert_scale", {1}, {scale}}};
}

TEST_F(OfflineFromHf, AScaleWithoutAPlaceMustBeOne) {
  Write(Scaled(0.5));
  EXPECT_THAT(Error("diffusion_gemma"),
              AllOf(HasSubstr("per_expert_scale"), HasSubstr("ones"), HasSubstr("down_projs")));
  Write(Scaled(1));
  ASSERT_TRUE(Convert("diffusion_gemma").ok());
  EXPECT_THAT(Values("model.layers.0.moe.experts.down_projs"), ElementsAre(1, 2));
}

TEST_F(OfflineFromHf, AScaleIsExpected) {
  Write({Scaled(1).front()});
  EXPECT_THAT(Error("diffusion_gemma"), AllOf(HasSubstr("per_expert_scale"), HasSubstr("is missing")));
  Write({Scaled(1).back()});
  EXPECT_THAT(Error("diffusion_gemma"), AllOf(HasSubstr("per_expert_scale"), HasSubstr("nothing else")));
}

TEST_F(OfflineFromHf, APartOfTheExpertsIsGemma4MoesAlone) {
  Write(Scaled(1));
  options_.mesh.ep_size = 2;
  EXPECT_THAT(Error("diffusion_gemma"), HasSubstr("whole native tensors"));
}

TEST_F(OfflineFromHf, ItSaysIfNothingWasThereToConvert) {
  Write({{"model.norm.weight", {1}, {1}}});
  EXPECT_THAT(Convert("qwen3_moe").value().note, HasSubstr("changes none"));
  EXPECT_EQ(Convert("identity").value().note, "");
}

}  // namespace
}  // namespace refit
