#include "client/trainer/cast_shards.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "common/adapters/adapter_registry.h"
#include "common/adapters/plan.h"
#include "common/tensor/kernels.h"
#include "common/wire/digest.h"

namespace refit {
namespace {

constexpr DType kFloats[] = {DType::kF64, DType::kF32, DType::kF16, DType::kBF16};
constexpr char kLayer[] = "model.language_model.layers.0.";

// One tensor for each kind of output that the adapters make.
std::vector<TensorSpec> OfAllKinds(DType dtype) {
  const std::string layer = kLayer;
  return {{"model.norm.weight", dtype, {8}},
          {layer + "moe.gate.proj.weight", dtype, {4, 6}},
          {layer + "moe.gate.scale", dtype, {6}},
          {layer + "moe.experts.gate_and_up_projs", dtype, {4, 6, 8}},
          {layer + "moe.experts.down_projs", dtype, {4, 6, 8}},
          {"empty", dtype, {0, 3}},
          {"scalar", dtype, {}}};
}

PublishOptions To(DType dtype, const std::string& adapter = "identity") {
  PublishOptions options;
  options.version = 1;
  options.adapter = adapter;
  options.dtype = dtype;
  return options;
}

std::vector<DType> Sent(const PublishOptions& options, std::vector<TensorSpec> native) {
  std::vector<DType> sent;
  for (const ShardCast& cast : PlanCasts(options, WholeParts(std::move(native)))) sent.push_back(cast.sent());
  return sent;
}

TEST(CastShards, WhatBecomesSmallerIsCast) {
  for (const DType from : kFloats) {
    for (const DType to : kFloats) {
      const DType expected = ElementSize(to) < ElementSize(from) ? to : from;
      EXPECT_EQ(Sent(To(to), {{"w", from, {3}}}), std::vector<DType>{expected}) << Name(from) << " to " << Name(to);
    }
  }
}

TEST(CastShards, WhatIsNoCastableNumberIsSentAsItIs) {
  for (const DType from : kAllDTypes) {
    if (IsCastable(from)) continue;
    for (const DType to : kFloats) EXPECT_EQ(Sent(To(to), {{"w", from, {4}}}), std::vector<DType>{from}) << Name(from);
  }
}

TEST(CastShards, WithoutATypeNothingIsCast) {
  PublishOptions options = To(DType::kBF16);
  options.dtype.reset();
  EXPECT_EQ(Sent(options, {{"w", DType::kF32, {3}}}), std::vector<DType>{DType::kF32});
}

TEST(CastShards, WhatIsKeptOrExcludedIsSentAsItIs) {
  PublishOptions options = To(DType::kBF16);
  options.keep_dtype_regex = ".*bias";
  options.exclude_key_regex = "frozen";
  const std::vector<TensorSpec> native = {
      {"w", DType::kF32, {3}}, {"a.bias", DType::kF32, {3}}, {"frozen.w", DType::kF32, {3}}};
  EXPECT_EQ(Sent(options, native), (std::vector<DType>{DType::kBF16, DType::kF32, DType::kF32}));
}

// The service must be able to say what is wrong in the trainer's own terms.
TEST(CastShards, WhatTheServiceWillRefuseIsSentAsItIs) {
  const std::vector<TensorSpec> native = {{"w", DType::kF32, {3}}};
  PublishOptions bad_regex = To(DType::kBF16);
  bad_regex.keep_dtype_regex = "(";
  PublishOptions bad_exclude = To(DType::kBF16);
  bad_exclude.exclude_key_regex = "(?=x)";
  for (const PublishOptions& options :
       {bad_regex, bad_exclude, To(DType::kBF16, "of a later version"), To(DType::kF8E4M3), To(DType::kI8)}) {
    EXPECT_EQ(Sent(options, native), std::vector<DType>{DType::kF32});
  }
  // An expert tensor without a layer, and one without matrices.
  EXPECT_EQ(Sent(To(DType::kBF16, "gemma4_moe"), {{"x.moe.experts.down_projs", DType::kF32, {4, 6, 8}},
                                                  {std::string(kLayer) + "moe.experts.down_projs", DType::kF32, {4}}}),
            (std::vector<DType>{DType::kF32, DType::kF32}));
}

// A service that gets tensors cast makes the same version of them as one that casts them itself.
TEST(CastShards, EveryAdapterPlansTheSameOutputs) {
  for (const std::string& adapter : AdapterNames()) {
    for (const DType from : kFloats) {
      for (const DType to : kFloats) {
        PublishOptions options = To(to, adapter);
        options.keep_dtype_regex = ".*scale";
        const std::vector<TensorSpec> native = OfAllKinds(from);
        const std::vector<DType> sent = Sent(options, native);
        const auto convert = CompileOptions(options);
        ASSERT_TRUE(convert.ok()) << convert.status();
        for (size_t i = 0; i < native.size(); ++i) {
          const TensorSpec cast = {native[i].name, sent[i], native[i].shape};
          const auto expected = (*FindAdapter(adapter))->PlanTensor(native[i], *convert);
          const auto planned = (*FindAdapter(adapter))->PlanTensor(cast, *convert);
          ASSERT_TRUE(expected.ok()) << expected.status();
          ASSERT_TRUE(planned.ok()) << planned.status();
          ASSERT_EQ(planned->size(), expected->size());
          for (size_t k = 0; k < planned->size(); ++k) {
            EXPECT_EQ((*planned)[k].hf, (*expected)[k].hf);
            EXPECT_EQ((*planned)[k].transform, (*expected)[k].transform);
          }
        }
      }
    }
  }
}

std::vector<std::byte> SomeF32(int64_t count) {
  std::vector<std::byte> bytes(count * sizeof(float));
  for (int64_t i = 0; i < count; ++i) {
    const float value = static_cast<float>(i) * 1.001F - 7.0F;
    std::memcpy(bytes.data() + i * sizeof(float), &value, sizeof(value));
  }
  return bytes;
}

TEST(CastShards, BothWaysOfCastingGiveTheKernelsBits) {
  for (const DType to : kFloats) {
    const ShardCast cast(DType::kF32, to);
    for (const int64_t count : {0, 1, 7, 4096, 100'003}) {
      const std::vector<std::byte> native = SomeF32(count);
      std::vector<std::byte> expected(count * ElementSize(to));
      ConvertElements(DType::kF32, to, native.data(), expected.data(), count);
      EXPECT_EQ(cast.SentBytes(native.size()), expected.size());
      EXPECT_EQ(cast.NativeBytes(expected.size()), native.size());

      std::vector<std::byte> written(expected.size());
      EXPECT_EQ(cast.WriteAndDigest(native, written.data()), DigestBytes(expected));
      EXPECT_EQ(written, expected);

      std::vector<std::byte> taken;
      cast.ForEachSent(native,
                       [&](absl::Span<const std::byte> sent) { taken.insert(taken.end(), sent.begin(), sent.end()); });
      EXPECT_EQ(taken, expected);
    }
  }
}

}  // namespace
}  // namespace refit
