#include "common/adapters/gemma4_moe_state_dict_adapter.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace refit {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

at::TensorOptions Type(at::ScalarType type) { return at::TensorOptions().dtype(type); }

std::vector<std::string> Keys(const StateDict& state_dict) {
  std::vector<std::string> keys;
  for (const auto& [name, tensor] : state_dict) keys.push_back(name);
  return keys;
}

ConvertOptions Cast(DType dtype) {
  ConvertOptions options;
  options.dtype = dtype;
  return options;
}

const Gemma4MoEStateDictAdapter& Adapter() {
  static const Gemma4MoEStateDictAdapter adapter({5}, DType::kBF16);
  return adapter;
}

absl::StatusOr<StateDict> Convert(absl::string_view name, const TypedTensor& tensor,
                                  const ConvertOptions& options = {}) {
  return Adapter().convert_single_tensor_to_hf(name, tensor, options);
}

// --- convert_single_tensor_to_hf
// ---------------------------------------------------------------------------------------

TEST(ConvertSingleTensorToHf, PassesTheSameTensor) {
  for (const char* name : {"model.norm.weight", "layers.0.moe.gate.scale"}) {
    const at::Tensor tensor = at::randn({3, 4}).t();
    const StateDict hf = Convert(name, tensor).value();
    ASSERT_EQ(hf.size(), 1u);
    EXPECT_TRUE(hf[0].second.data.is_same(tensor));
  }
}

TEST(ConvertSingleTensorToHf, TransposesExpertsAndEmitsTheScaleAfterDown) {
  const at::Tensor down = at::randn({5, 8, 24}, Type(at::kFloat)).to(at::kHalf);
  const StateDict hf = Convert("model.language_model.layers.3.moe.experts.down_projs", down).value();
  EXPECT_THAT(Keys(hf), ElementsAre("model.language_model.layers.3.experts.down_proj",
                                    "model.language_model.layers.3.router.per_expert_scale"));
  EXPECT_TRUE(at::equal(hf[0].second.data, down.transpose(-2, -1)));
  EXPECT_TRUE(hf[0].second.data.is_contiguous());
  EXPECT_TRUE(at::equal(hf[1].second.data, at::ones({5}, Type(at::kHalf))));
}

TEST(ConvertSingleTensorToHf, TakesTransposedViewsOfTheTrainer) {
  const at::Tensor stored = at::randn({5, 24, 16});
  const StateDict hf =
      Convert("layers.0.moe.experts.gate_and_up_projs", stored.transpose(-2, -1).slice(2, 0, 24, 2)).value();
  EXPECT_TRUE(at::equal(hf[0].second.data, stored.slice(1, 0, 24, 2)));
  EXPECT_TRUE(hf[0].second.data.is_contiguous());
}

TEST(ConvertSingleTensorToHf, CastsAfterTheConversion) {
  const at::Tensor down = at::randn({5, 8, 24});
  const StateDict hf = Convert("layers.0.moe.experts.down_projs", down, Cast(DType::kBF16)).value();
  EXPECT_TRUE(at::equal(hf[0].second.data, down.transpose(-2, -1).to(at::kBFloat16)));
  EXPECT_EQ(hf[1].second.dtype, DType::kBF16);
  EXPECT_EQ(Convert("position_ids", at::arange(4), Cast(DType::kBF16)).value()[0].second.dtype, DType::kI64);
}

TEST(ConvertSingleTensorToHf, EmptyTensorsWork) {
  const StateDict hf = Convert("layers.0.moe.experts.down_projs", at::empty({0, 8, 24})).value();
  EXPECT_EQ(hf[0].second.data.sizes().vec(), (std::vector<int64_t>{0, 24, 8}));
  EXPECT_EQ(hf[1].second.data.sizes().vec(), (std::vector<int64_t>{0}));
}

TEST(ConvertSingleTensorToHf, ScalarsPass) {
  EXPECT_EQ(Convert("layers.0.layer_scalar", at::scalar_tensor(3)).value()[0].second.data.dim(), 0);
}

TEST(ConvertSingleTensorToHf, FloatEightIsTransposedAsBytes) {
  const at::Tensor bytes = at::arange(30, Type(at::kByte)).view({2, 3, 5});
  const TypedTensor tensor(ScalarTypeOf(DType::kF8E4M3) ? bytes.view(*ScalarTypeOf(DType::kF8E4M3)) : bytes,
                           DType::kF8E4M3);
  const StateDict hf = Convert("layers.0.moe.experts.down_projs", tensor, Cast(DType::kBF16)).value();
  EXPECT_EQ(hf[0].second.dtype, DType::kF8E4M3);
  EXPECT_TRUE(at::equal(hf[0].second.data.view(at::kByte), bytes.transpose(-2, -1)));
  EXPECT_TRUE(at::equal(hf[1].second.data.view(at::kByte), at::full({2}, 0x38, Type(at::kByte))));  // 1.0
}

TEST(ConvertSingleTensorToHf, ErrorsNameTheTensor) {
  const char* name = "layers.0.moe.experts.gate_and_up_projs";
  EXPECT_THAT(std::string(Convert(name, at::ones({3})).status().message()), AllOf(HasSubstr(name), HasSubstr("[3]")));
  EXPECT_EQ(Convert("x.moe.experts.down_projs", at::ones({2, 3})).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Convert("x", TypedTensor()).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Convert("x", at::ones({2}), Cast(DType::kI8)).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(ConvertSingleTensorToHf, ExcludesByNativeName) {
  ConvertOptions options;
  options.exclude = PythonRegex::Compile(".*_extra_state.*").value();
  EXPECT_THAT(Convert("layers.0.moe.experts._extra_state", at::ones({1}), options).value(), IsEmpty());
}

// --- to_hf, and its keys
// -----------------------------------------------------------------------------------------------

TEST(ToHf, MakesTheScaleOfTheConfigInTheAdaptersDType) {
  const StateDict hf = Adapter().to_hf({{"layers.0.moe.experts.down_projs", at::randn({2, 8, 24})}}).value();
  EXPECT_THAT(Keys(hf), ElementsAre("language_model.layers.0.experts.down_proj",
                                    "language_model.layers.0.router.per_expert_scale"));
  EXPECT_EQ(hf[0].second.dtype, DType::kF32);
  EXPECT_TRUE(at::equal(hf[1].second.data, at::ones({5}, Type(at::kBFloat16))));
}

TEST(ToHf, RefusesABadRegexAndCollidingNames) {
  EXPECT_EQ(Adapter().to_hf({}, "(").status().code(), absl::StatusCode::kInvalidArgument);
  const absl::Status status = Adapter()
                                  .to_hf({{"a.layers.0.moe.experts.gate_and_up_projs", at::ones({2, 3})},
                                          {"b.layers.0.moe.experts.gate_and_up_projs", at::ones({2, 3})}})
                                  .status();
  EXPECT_THAT(std::string(status.message()), HasSubstr("both become"));
}

TEST(GetHfStateDictKeys, LeavesExtraStateOut) {
  const StateDict native = {{"layers.0._extra_state", at::ones({1})},
                            {"layers.0.moe.experts.down_projs", at::ones({1}).expand({5, 1 << 20, 1 << 20})},
                            {"norm", at::ones({1})}};
  EXPECT_THAT(Adapter().get_hf_state_dict_keys(native).value(),
              ElementsAre("language_model.layers.0.experts.down_proj",
                          "language_model.layers.0.router.per_expert_scale", "norm"));
}

// --- from_hf
// -----------------------------------------------------------------------------------------------------------

StateDict HfLayer(at::ScalarType projections, at::ScalarType scale) {
  return {{"layers.0.router.per_expert_scale", (at::rand({5}) + 0.5).to(scale)},
          {"layers.0.experts.gate_up_proj", at::randn({5, 16, 24}).to(projections)},
          {"layers.0.experts.down_proj", at::randn({5, 24, 8}).to(projections)}};
}

TEST(FromHf, MultipliesInTheSourceDTypesAndCastsAfterwards) {
  for (const at::ScalarType scale_type : {at::kBFloat16, at::kFloat, at::kHalf, at::kDouble}) {
    const StateDict hf = HfLayer(at::kBFloat16, scale_type);
    const at::Tensor scale = hf[0].second.data;
    const at::Tensor expected = (hf[2].second.data.transpose(-2, -1) * scale.view({5, 1, 1})).to(at::kHalf);
    const StateDict native = Gemma4MoEStateDictAdapter({5}, DType::kF16).from_hf(hf).value();
    EXPECT_TRUE(at::equal(native[1].second.data, expected)) << scale_type;
  }
}

TEST(FromHf, SlicesOfAllRanksMakeTheWhole) {
  const StateDict hf = HfLayer(at::kFloat, at::kFloat);
  const StateDict whole = Adapter().from_hf(hf).value();
  for (size_t output : {size_t{0}, size_t{1}}) {
    std::vector<at::Tensor> experts;
    for (int64_t rank = 0; rank < 3; ++rank) {
      std::vector<at::Tensor> rows;
      for (int64_t shard = 0; shard < 2; ++shard) {
        rows.push_back(Adapter().from_hf(hf, {rank, 3, shard, 2}).value()[output].second.data);
      }
      experts.push_back(at::cat(rows, 1));
    }
    EXPECT_TRUE(at::equal(at::cat(experts, 0), whole[output].second.data));
  }
}

TEST(FromHf, UndoesToHf) {
  const StateDict native = {
      {"language_model.layers.0.moe.gate.scale", at::randn({24}).to(at::kBFloat16)},
      {"language_model.layers.0.moe.experts.gate_and_up_projs", at::randn({5, 24, 16}).to(at::kBFloat16)},
      {"language_model.layers.0.moe.experts.down_projs", at::randn({5, 8, 24}).to(at::kBFloat16)}};
  const StateDict back = Adapter().from_hf(Adapter().to_hf(native).value()).value();
  EXPECT_EQ(Keys(back), Keys(native));
  for (size_t i = 0; i < native.size(); ++i) {
    EXPECT_TRUE(at::equal(back[i].second.data, native[i].second.data)) << native[i].first;
  }
}

TEST(FromHf, ErrorsSayWhatIsMissing) {
  StateDict hf = HfLayer(at::kFloat, at::kFloat);
  hf.pop_back();
  EXPECT_THAT(std::string(Adapter().from_hf(hf).status().message()),
              HasSubstr("Incomplete expert weights for layers.0: missing down_proj."));
}

}  // namespace
}  // namespace refit
