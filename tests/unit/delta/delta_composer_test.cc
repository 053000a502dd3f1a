#include "common/delta/delta_composer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/delta/delta_decoder.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/delta/ranges.h"

namespace refit {
namespace {

using Kind = EncodedDelta::Kind;

constexpr DeltaLimits kAnyNumber{.changed = 1};

// Payloads of consecutive versions.
struct Chain {
  std::vector<Bytes> payloads;

  absl::StatusOr<EncodedDelta> Compose(uint64_t bytes, size_t element_size,
                                       const DeltaLimits& limits = kAnyNumber) const {
    DeltaComposer composer;
    return Compose(composer, bytes, element_size, limits);
  }
  absl::StatusOr<EncodedDelta> Compose(DeltaComposer& composer, uint64_t bytes, size_t element_size,
                                       const DeltaLimits& limits = kAnyNumber) const {
    const std::vector<absl::Span<const std::byte>> spans(payloads.begin(), payloads.end());
    return composer.Compose(spans, bytes, element_size, limits);
  }
  void Add(const Bytes& base, const Bytes& now, size_t element_size) {
    absl::StatusOr<EncodedDelta> delta = DeltaEncoder().Encode(base, now, element_size, kAnyNumber);
    ASSERT_OK(delta);
    ASSERT_NE(delta->kind, Kind::kRaw);
    if (delta->kind == Kind::kDelta) payloads.push_back(std::move(delta->payload));
  }
};

// What a chain makes is what one delta over all its versions is, to the byte.
TEST(DeltaComposer, RandomChains) {
  DeltaComposer composer;  // keeps nothing of earlier chains but memory
  for (uint64_t seed = 0; seed < 200; ++seed) {
    RandomRanges random(seed);
    const size_t element_size = size_t{1} << random.Below(4);
    SCOPED_TRACE(testing::Message() << "seed " << seed << ", elements of " << element_size);
    const Bytes first = random.Range(200 + random.Below(2000), element_size);
    Bytes last = first;
    Chain chain;
    for (uint64_t steps = 1 + random.Below(8); steps > 0; --steps) {
      const auto step = random.Below(4) == 0 && element_size > 1 ? Step::kSignOrNan : Step::kUlps;
      const Bytes next = random.Changed(last, element_size, 0.02, step);
      chain.Add(last, next, element_size);
      last = next;
    }
    const absl::StatusOr<EncodedDelta> composed = chain.Compose(composer, first.size(), element_size);
    ASSERT_OK(composed);
    const absl::StatusOr<EncodedDelta> direct = DeltaEncoder().Encode(first, last, element_size, kAnyNumber);
    ASSERT_OK(direct);
    EXPECT_EQ(composed->kind, direct->kind);
    EXPECT_EQ(composed->changed, direct->changed);
    EXPECT_EQ(composed->payload, direct->payload);
  }
}

TEST(DeltaComposer, ThereAndBackIsUnchanged) {
  RandomRanges random(1);
  const Bytes here = random.Range(1000, 2);
  const Bytes there = random.Changed(here, 2, 0.1, Step::kAnyBits);
  Chain chain;
  chain.Add(here, there, 2);
  chain.Add(there, here, 2);
  const absl::StatusOr<EncodedDelta> composed = chain.Compose(here.size(), 2);
  ASSERT_OK(composed);
  EXPECT_EQ(composed->kind, Kind::kUnchanged);
}

TEST(DeltaComposer, NoDeltasAreUnchanged) {
  const absl::StatusOr<EncodedDelta> composed = Chain().Compose(1000, 2);
  ASSERT_OK(composed);
  EXPECT_EQ(composed->kind, Kind::kUnchanged);
}

TEST(DeltaComposer, RawWhereTooManyHaveChanged) {
  RandomRanges random(2);
  const Bytes first = random.Range(1 << 16, 2);
  const Bytes second = random.Changed(first, 2, 0.1, Step::kUlps);
  const Bytes third = random.Changed(second, 2, 0.1, Step::kUlps);
  Chain chain;
  chain.Add(first, second, 2);
  chain.Add(second, third, 2);
  const absl::StatusOr<EncodedDelta> composed = chain.Compose(first.size(), 2, DeltaLimits{});
  ASSERT_OK(composed);
  EXPECT_EQ(composed->kind, Kind::kRaw);
}

TEST(DeltaComposer, SaysWhichIsMalformed) {
  RandomRanges random(3);
  const Bytes base = random.Range(1000, 2);
  Chain chain;
  chain.Add(base, random.Changed(base, 2, 0.1, Step::kUlps), 2);
  chain.payloads.emplace_back(3);
  EXPECT_THAT(chain.Compose(base.size(), 2),
              StatusIs(absl::StatusCode::kInvalidArgument, testing::StartsWith("delta 2 of 2: malformed delta")));
}

}  // namespace
}  // namespace refit
