// Encoder and decoder together: whatever changes, the decoder makes of the base what the encoder saw.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <tuple>

#include "common/delta/delta_decoder.h"
#include "common/delta/delta_encoder.h"
#include "common/tensor/kernels.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/delta/ranges.h"

namespace refit {
namespace {

using Kind = EncodedDelta::Kind;

constexpr DeltaLimits kAnyNumber{.changed = 1};
constexpr size_t kSizes[] = {1, 2, 4, 8};

EncodedDelta Encode(const Bytes& base, const Bytes& now, size_t element_size, const DeltaLimits& limits = kAnyNumber) {
  const Exactly exact_base(base);
  const Exactly exact_now(now);
  DeltaEncoder encoder;
  absl::StatusOr<EncodedDelta> delta =
      encoder.Encode(std::as_const(exact_base).span(), std::as_const(exact_now).span(), element_size, limits);
  EXPECT_OK(delta);
  return *delta;
}

// Both ways of applying, and back.
void ExpectTurns(const Bytes& base, const Bytes& now, size_t element_size, const Bytes& payload) {
  DeltaDecoder decoder;
  const Exactly exact(payload);
  ASSERT_OK(decoder.Read(exact.span(), base.size(), element_size));
  EXPECT_EQ(decoder.changed(), CountChanged(base, now, element_size));
  Exactly result{Bytes(base.size())};
  ASSERT_OK(decoder.Apply(base, result.span()));
  EXPECT_TRUE(absl::Span<const std::byte>(result.span()) == absl::MakeConstSpan(now));
  Exactly range(base);
  ASSERT_OK(decoder.ApplyInPlace(range.span()));
  EXPECT_TRUE(absl::Span<const std::byte>(range.span()) == absl::MakeConstSpan(now));
  ASSERT_OK(decoder.RevertInPlace(range.span()));
  EXPECT_TRUE(absl::Span<const std::byte>(range.span()) == absl::MakeConstSpan(base));
}

void CheckRandomCase(uint64_t seed) {
  RandomRanges random(seed);
  const size_t element_size = kSizes[random.Below(4)];
  const size_t elements = random.Below(4) == 0 ? random.Below(70) : random.Below(5000);
  const double probability = std::pow(10.0, -static_cast<double>(random.Below(400)) / 100);
  const auto step = static_cast<Step>(random.Below(4));
  const bool lumps = random.Below(3) == 0;
  SCOPED_TRACE(testing::Message() << "seed " << seed << ": " << elements << " elements of " << element_size
                                  << ", changed " << probability << ", step " << static_cast<int>(step));
  const Bytes base = random.Range(elements, element_size);
  const Bytes now = random.Changed(base, element_size, probability, step, lumps);

  const EncodedDelta delta = Encode(base, now, element_size);
  ASSERT_EQ(delta.kind == Kind::kUnchanged, base == now);
  if (delta.kind != Kind::kDelta) {
    EXPECT_TRUE(delta.payload.empty());
    return;
  }
  EXPECT_LT(delta.payload.size(), now.size());
  EXPECT_EQ(delta.changed, CountChanged(base, now, element_size));
  ExpectTurns(base, now, element_size, delta.payload);
}

TEST(DeltaCodec, RandomRanges) {
  for (uint64_t seed = 0; seed < 1000; ++seed) CheckRandomCase(seed);
}

// Every processor makes the same payload of the same ranges.
TEST(DeltaCodec, EveryInstructionSet) {
  RandomRanges random(1);
  for (const size_t element_size : kSizes) {
    const Bytes base = random.Range(4999, element_size);
    const Bytes now = random.Changed(base, element_size, 0.03, Step::kUlps);
    const EncodedDelta best = Encode(base, now, element_size);
    for (const std::string& target : KernelTargets()) {
      SCOPED_TRACE(testing::Message() << target << ", elements of " << element_size);
      ASSERT_TRUE(UseKernelTarget(target));
      EXPECT_EQ(Encode(base, now, element_size).payload, best.payload);
      ExpectTurns(base, now, element_size, best.payload);
    }
    ASSERT_TRUE(UseKernelTarget(""));
  }
}

TEST(DeltaCodec, EveryLengthAndOnlyChange) {
  for (const size_t element_size : kSizes) {
    for (size_t elements = 1; elements <= 200; ++elements) {
      for (const size_t at : {size_t{0}, elements / 2, elements - 1}) {
        const Bytes base(elements * element_size);
        Bytes now = base;
        now[at * element_size + element_size - 1] = std::byte{0x80};
        const EncodedDelta delta = Encode(base, now, element_size);
        if (delta.kind == Kind::kRaw) {
          EXPECT_LE(now.size(), 32u);
        } else {
          ExpectTurns(base, now, element_size, delta.payload);
        }
      }
    }
  }
}

// Codecs that keep gaps in 8 or 16 bits lose what lies further away.
TEST(DeltaCodec, GapsOfEveryWidth) {
  std::vector<size_t> positions = {0};
  for (int bits = 1; bits <= 22; ++bits) {
    positions.push_back(positions.back() + (size_t{1} << bits));
    positions.push_back(positions.back() + (size_t{1} << bits) + 1);
  }
  const Bytes base(positions.back() + 1);
  Bytes now = base;
  for (const size_t position : positions) now[position] = std::byte{1};
  const EncodedDelta delta = Encode(base, now, 1);
  EXPECT_EQ(delta.changed, positions.size());
  ExpectTurns(base, now, 1, delta.payload);
}

// A payload does not know that it was applied already: that is for digests to tell, and the way back is exact.
TEST(DeltaCodec, TwiceIsAnotherRangeAndTheWayBackIsExact) {
  RandomRanges random(3);
  const Bytes base = random.Range(1000, 2);
  const Bytes now = random.Changed(base, 2, 0.05, Step::kUlps);
  const EncodedDelta delta = Encode(base, now, 2);
  DeltaDecoder decoder;
  ASSERT_OK(decoder.Read(delta.payload, base.size(), 2));
  Bytes range = base;
  ASSERT_OK(decoder.ApplyInPlace(absl::MakeSpan(range)));
  ASSERT_OK(decoder.ApplyInPlace(absl::MakeSpan(range)));
  EXPECT_NE(range, now);
  EXPECT_NE(range, base);  // as an XOR would give
  ASSERT_OK(decoder.RevertInPlace(absl::MakeSpan(range)));
  EXPECT_EQ(range, now);
}

TEST(DeltaCodec, ComparesBitsAndNoNumbers) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  std::vector<float> base(100, 1.0F);
  base[3] = 0.0F;
  base[7] = kNan;
  base[9] = kNan;
  std::vector<float> now = base;
  now[3] = -0.0F;                                                              // equal, but other bits
  now[9] = std::bit_cast<float>(std::bit_cast<uint32_t>(kNan) ^ 0x80000005U);  // both NaN
  const auto bytes = [](const std::vector<float>& values) {
    const auto* begin = reinterpret_cast<const std::byte*>(values.data());
    return Bytes(begin, begin + values.size() * sizeof(float));
  };
  EXPECT_EQ(Encode(bytes(base), bytes(base), 4).kind, Kind::kUnchanged);
  const EncodedDelta delta = Encode(bytes(base), bytes(now), 4);
  EXPECT_EQ(delta.changed, 2u);
  ExpectTurns(bytes(base), bytes(now), 4, delta.payload);
}

TEST(DeltaCodec, NothingOfNothingChanges) {
  for (const size_t element_size : kSizes) EXPECT_EQ(Encode({}, {}, element_size).kind, Kind::kUnchanged);
}

TEST(DeltaCodec, WidestDifferences) {
  for (const size_t element_size : kSizes) {
    const Bytes base(100 * element_size);
    Bytes now = base;
    const uint64_t ends[] = {1, ~uint64_t{0}, uint64_t{1} << (8 * element_size - 1),
                             (uint64_t{1} << (8 * element_size - 1)) - 1, (uint64_t{1} << (8 * element_size - 1)) + 1};
    for (size_t i = 0; i < std::size(ends); ++i) SetElement(absl::MakeSpan(now), element_size, 11 * i, ends[i]);
    const EncodedDelta delta = Encode(base, now, element_size);
    ASSERT_EQ(delta.kind, Kind::kDelta);
    ExpectTurns(base, now, element_size, delta.payload);
  }
}

// All elements by the same: neither gaps nor differences need a bit.
TEST(DeltaCodec, WhatIsAlikeCostsNothing) {
  RandomRanges random(3);
  const Bytes base = random.Range(100'000, 2);
  const Bytes now = random.Changed(base, 2, 1, Step::kAlike);
  const EncodedDelta delta = Encode(base, now, 2);
  ASSERT_EQ(delta.kind, Kind::kDelta);
  EXPECT_LT(delta.payload.size(), 16u);
  ExpectTurns(base, now, 2, delta.payload);
}

// A chunk of BF16 whose payload takes at most so many times what the places of its changes, and which of the steps each
// is, must take.
void ExpectNearEntropy(Step step, double bits_a_step, double times) {
  RandomRanges random(4);
  const Bytes base = random.Range(1 << 20, 2);
  for (const double p : {0.005, 0.01, 0.03, 0.05}) {
    const Bytes now = random.Changed(base, 2, p, step);
    const EncodedDelta delta = Encode(base, now, 2, DeltaLimits{});
    ASSERT_EQ(delta.kind, Kind::kDelta);
    const double bits = -(p * std::log2(p) + (1 - p) * std::log2(1 - p)) / p + bits_a_step;
    EXPECT_LT(static_cast<double>(delta.payload.size()), times * bits / 8 * static_cast<double>(delta.changed));
    ExpectTurns(base, now, 2, delta.payload);
  }
}

TEST(DeltaCodec, NearTheEntropyOfUniformSteps) { ExpectNearEntropy(Step::kUlps, 2, 1.02); }

// 24 of 25 steps are of one unit: 1.24 bits.
TEST(DeltaCodec, NearTheEntropyOfMostlySmallSteps) { ExpectNearEntropy(Step::kMostlyOneUlp, 1.242, 1.06); }

TEST(DeltaCodec, GivesUpWhereTooManyChange) {
  RandomRanges random(5);
  const Bytes base = random.Range(1 << 20, 2);
  const auto kind = [&](double p, Step step, const DeltaLimits& limits) {
    return Encode(base, random.Changed(base, 2, p, step), 2, limits).kind;
  };
  for (const double p : {0.2, 1.0}) EXPECT_EQ(kind(p, Step::kUlps, {}), Kind::kRaw);
  EXPECT_EQ(kind(1, Step::kAnyBits, {}), Kind::kRaw);
  EXPECT_EQ(kind(1, Step::kAnyBits, kAnyNumber), Kind::kRaw);  // would not be smaller
  for (const double p : {0.2, 1.0}) EXPECT_EQ(kind(p, Step::kUlps, kAnyNumber), Kind::kDelta);
  EXPECT_EQ(kind(0.12, Step::kUlps, {}), Kind::kDelta);
  EXPECT_EQ(kind(0.13, Step::kUlps, {}), Kind::kRaw);
  EXPECT_EQ(kind(0.001, Step::kUlps, {.changed = 0}), Kind::kRaw);
}

TEST(DeltaCodec, KeepsNothingOfEarlierRanges) {
  DeltaEncoder encoder;
  DeltaDecoder decoder;
  RandomRanges random(6);
  for (int i = 0; i < 50; ++i) {
    const size_t element_size = kSizes[random.Below(4)];
    const Bytes base = random.Range(random.Below(3000), element_size);
    const Bytes now = random.Changed(base, element_size, 0.1, Step::kUlps);
    const absl::StatusOr<EncodedDelta> delta = encoder.Encode(base, now, element_size, kAnyNumber);
    ASSERT_OK(delta);
    if (delta->kind != Kind::kDelta) continue;
    ASSERT_OK(decoder.Read(delta->payload, base.size(), element_size));
    Bytes result(base.size());
    ASSERT_OK(decoder.Apply(base, absl::MakeSpan(result)));
    EXPECT_EQ(result, now);
  }
}

TEST(DeltaCodec, RangesThatDoNotFit) {
  DeltaEncoder encoder;
  const Bytes eight(8);
  for (const auto& [base, now, element_size] :
       {std::tuple<size_t, size_t, size_t>{8, 6, 2}, {7, 7, 2}, {6, 6, 3}, {8, 8, 0}, {8, 8, 16}}) {
    EXPECT_THAT(encoder.Encode(absl::MakeSpan(eight).first(base), absl::MakeSpan(eight).first(now), element_size),
                StatusIs(absl::StatusCode::kInvalidArgument, testing::HasSubstr("no delta between")));
  }
}

}  // namespace
}  // namespace refit
