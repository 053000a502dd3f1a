// Payloads that nobody should send: refused, with a reason, and nothing is written.
#include "common/delta/delta_decoder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "common/delta/delta_encoder.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/delta/ranges.h"

namespace refit {
namespace {

using testing::HasSubstr;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr size_t kElements = 100;  // of 2 bytes each

Bytes Of(const std::vector<int>& bytes) {
  Bytes result;
  for (const int byte : bytes) result.push_back(static_cast<std::byte>(byte));
  return result;
}

absl::Status Read(const Bytes& payload, uint64_t bytes = 2 * kElements, size_t element_size = 2) {
  DeltaDecoder decoder;
  const absl::Status status = decoder.Read(Exactly(payload).span(), bytes, element_size);
  EXPECT_TRUE(status.ok() || decoder.changed() == 0);
  return status;
}

// Two changes: element 1 by +1, element 5 by -1. The gaps 1 and 3 have codes of a bit, and so have the differences.
const std::vector<int> kGapCode = {4, 0x00, 0x10, 0x00, 0x10};
const std::vector<int> kDifferenceCode = {1, 0x11};

std::vector<int> Payload(const std::vector<int>& begin, const std::vector<int>& gap_code,
                         const std::vector<int>& difference_code, const std::vector<int>& end) {
  std::vector<int> payload = begin;
  for (const auto& part : {gap_code, difference_code, end}) payload.insert(payload.end(), part.begin(), part.end());
  return payload;
}

TEST(DeltaDecoder, ReadsThePayloadOfTheDescription) {
  const Bytes payload = Of(Payload({1, 2}, kGapCode, kDifferenceCode, {1, 0x40, 0x80}));
  DeltaDecoder decoder;
  ASSERT_OK(decoder.Read(payload, 2 * kElements, 2));
  Bytes range(2 * kElements);
  ASSERT_OK(decoder.ApplyInPlace(absl::MakeSpan(range)));
  Bytes wanted(2 * kElements);
  SetElement(absl::MakeSpan(wanted), 2, 1, 1);
  SetElement(absl::MakeSpan(wanted), 2, 5, 0xffff);
  EXPECT_EQ(range, wanted);
  // And it is what the encoder makes.
  const absl::StatusOr<EncodedDelta> encoded = DeltaEncoder().Encode(Bytes(2 * kElements), wanted, 2);
  ASSERT_OK(encoded);
  EXPECT_EQ(encoded->payload, payload);
}

struct Malformed {
  const char* why;
  std::vector<int> payload;
};

const std::vector<Malformed> kMalformed = {
    {"it is empty", {}},
    {"it begins with 0, for elements of 2 bytes it is 1", Payload({0, 2}, kGapCode, kDifferenceCode, {1, 0x40, 0x80})},
    {"it begins with 9", Payload({9, 2}, kGapCode, kDifferenceCode, {1, 0x40, 0x80})},
    {"no number of changes", {1}},
    {"no number of changes", {1, 0x82}},
    {"no number of changes", {1, 0x82, 0x00}},  // not the shortest form
    {"no number of changes", {1, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1}},
    {"0 changes of 100", Payload({1, 0}, kGapCode, kDifferenceCode, {1, 0x40, 0x80})},
    {"101 changes of 100", Payload({1, 101}, kGapCode, kDifferenceCode, {1, 0x40, 0x80})},
    {"ends within a code", {1, 2}},
    {"ends within a code", {1, 2, 4, 0x00, 0x10, 0x00}},
    {"ends within a code", Payload({1, 2}, kGapCode, {2, 0x11}, {})},
    {"a code of 11 bits", Payload({1, 2}, {1, 0xb0}, kDifferenceCode, {0, 0x80})},
    {"no complete code", Payload({1, 2}, {0}, kDifferenceCode, {1, 0x40, 0x80})},
    {"no complete code", Payload({1, 2}, {1, 0x00}, kDifferenceCode, {1, 0x40, 0x80})},
    {"no complete code", Payload({1, 2}, {1, 0x12}, kDifferenceCode, {1, 0x40, 0x80})},  // three of one bit
    {"no complete code", Payload({1, 2}, {2, 0x10, 0x20}, kDifferenceCode, {1, 0x40, 0x80})},
    {"no complete code", Payload({1, 2}, {1, 0x20}, kDifferenceCode, {1, 0x40, 0x80})},  // alone, and of two bits
    {"a code for symbol 31", Payload({1, 2}, {2, 0x4f, 0x4f}, kDifferenceCode, {1, 0x40, 0x80})},
    {"a code for symbol 63", Payload({1, 2}, kGapCode, {4, 0x6f, 0x6f, 0x6f, 0x6f}, {1, 0x40, 0x80})},
    {"it ends within the gaps", Payload({1, 2}, kGapCode, kDifferenceCode, {})},
    {"it ends within the gaps", Payload({1, 2}, kGapCode, kDifferenceCode, {3, 0x40, 0x80})},
    {"too short for 2 changes", Payload({1, 2}, kGapCode, kDifferenceCode, {0, 0x80})},
    {"too short for 2 changes", Payload({1, 2}, kGapCode, kDifferenceCode, {1, 0x40})},
    {"too short for 100 changes", Payload({1, 100}, kGapCode, kDifferenceCode, {1, 0x40, 0x80})},
    {"gaps take 1 bytes, 2 are there", Payload({1, 2}, kGapCode, kDifferenceCode, {2, 0x40, 0x00, 0x80})},
    {"differences take 1 bytes, 2 are there", Payload({1, 2}, kGapCode, kDifferenceCode, {1, 0x40, 0x80, 0x00})},
    {"gaps are followed by bits that are not zero", Payload({1, 2}, kGapCode, kDifferenceCode, {1, 0x41, 0x80})},
    {"differences are followed by bits", Payload({1, 2}, kGapCode, kDifferenceCode, {1, 0x40, 0xa0})},
    // Symbol 22 alone, 96 to 111 with four plain bits: gaps of 103 and 96.
    {"a change of element 200 of 100", Payload({1, 2}, {3, 0x0f, 0x05, 0x10}, kDifferenceCode, {1, 0x70, 0x80})},
};

TEST(DeltaDecoder, MalformedPayloads) {
  for (const Malformed& malformed : kMalformed) {
    SCOPED_TRACE(malformed.why);
    EXPECT_THAT(Read(Of(malformed.payload)), StatusIs(kInvalid, HasSubstr("malformed delta payload: ")));
    EXPECT_THAT(Read(Of(malformed.payload)), StatusIs(kInvalid, HasSubstr(malformed.why)));
  }
}

// Folded differences end one below the largest number of their symbol, which would fold no change.
TEST(DeltaDecoder, DifferencesThatAreTooLarge) {
  // Symbol 27 alone: 224 to 255, five plain bits.
  const std::vector<int> code = {3, 0x0f, 0x0a, 0x10};
  EXPECT_OK(Read(Of(Payload({0, 1}, {1, 0x10}, code, {0, 30 << 3})), 100, 1));
  EXPECT_THAT(Read(Of(Payload({0, 1}, {1, 0x10}, code, {0, 31 << 3})), 100, 1),
              StatusIs(kInvalid, HasSubstr("a difference is too large for elements of 1 bytes")));
}

TEST(DeltaDecoder, RangesThatDoNotFit) {
  const Bytes payload = Of(Payload({1, 2}, kGapCode, kDifferenceCode, {1, 0x40, 0x80}));
  EXPECT_OK(Read(payload));
  EXPECT_THAT(Read(payload, 201), StatusIs(kInvalid, HasSubstr("no delta of 201 bytes of elements of 2")));
  EXPECT_THAT(Read(payload, 200, 3), StatusIs(kInvalid));
  EXPECT_THAT(Read(payload, 200, 0), StatusIs(kInvalid));
  EXPECT_THAT(Read(payload, uint64_t{1} << 40), StatusIs(kInvalid, HasSubstr("at most")));
  EXPECT_THAT(Read(payload, 0), StatusIs(kInvalid, HasSubstr("2 changes of 0 elements")));
  EXPECT_THAT(Read(payload, 10), StatusIs(kInvalid, HasSubstr("a change of element 5 of 5")));

  DeltaDecoder decoder;
  ASSERT_OK(decoder.Read(payload, 200, 2));
  Bytes right(200, std::byte{7});
  const Bytes before = right;
  Bytes wrong(198);
  EXPECT_THAT(decoder.Apply(wrong, absl::MakeSpan(right)), StatusIs(kInvalid, HasSubstr("198")));
  EXPECT_THAT(decoder.Apply(right, absl::MakeSpan(wrong)), StatusIs(kInvalid));
  EXPECT_THAT(decoder.ApplyInPlace(absl::MakeSpan(wrong)), StatusIs(kInvalid));
  EXPECT_THAT(decoder.RevertInPlace(absl::MakeSpan(wrong)), StatusIs(kInvalid));
  EXPECT_EQ(right, before);
  EXPECT_EQ(wrong, Bytes(198));
}

// A few bytes that stand for as many changes as a range has elements are right; memory is taken for no more.
TEST(DeltaDecoder, SmallPayloadsOfManyChanges) {
  std::vector<int> payload = {1, 0xff, 0xff, 0x7f, 1, 0x10, 1, 0x10, 0};
  EXPECT_OK(Read(Of(payload), 2 * 0x1fffff));
  EXPECT_THAT(Read(Of(payload), 2 * 0x1ffffe), StatusIs(kInvalid, HasSubstr("2097151 changes of 2097150")));
  payload = {1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 1, 0x10, 1, 0x10, 0};
  EXPECT_THAT(Read(Of(payload), 200), StatusIs(kInvalid, HasSubstr("changes of 100")));
}

class DamagedPayload : public testing::Test {
 protected:
  DamagedPayload() {
    RandomRanges random(1);
    base_ = random.Range(3000, 4);
    payload_ = DeltaEncoder().Encode(base_, random.Changed(base_, 4, 0.05, Step::kAnyBits), 4).value().payload;
  }

  Bytes base_;
  Bytes payload_;
};

TEST_F(DamagedPayload, IsRefusedAtEveryLength) {
  for (size_t size = 0; size < payload_.size(); ++size) {
    EXPECT_THAT(Read(Bytes(payload_.begin(), payload_.begin() + static_cast<std::ptrdiff_t>(size)), base_.size(), 4),
                StatusIs(kInvalid));
  }
  payload_.push_back({});
  EXPECT_THAT(Read(payload_, base_.size(), 4), StatusIs(kInvalid));
}

// What is not refused stays within the range, which AddressSanitizer sees, and can be taken back.
TEST_F(DamagedPayload, WithAnyBitChangedStaysInTheRange) {
  DeltaDecoder decoder;
  size_t refused = 0;
  for (size_t bit = 0; bit < 8 * payload_.size(); ++bit) {
    Bytes damaged = payload_;
    damaged[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
    if (!decoder.Read(damaged, base_.size(), 4).ok()) {
      ++refused;
      continue;
    }
    Exactly range(base_);
    ASSERT_OK(decoder.ApplyInPlace(range.span()));
    ASSERT_OK(decoder.RevertInPlace(range.span()));
    ASSERT_TRUE(absl::Span<const std::byte>(range.span()) == absl::MakeConstSpan(base_));
  }
  EXPECT_GT(refused, 0u);
}

TEST(DeltaDecoder, HasNothingToApplyAfterAFailure) {
  DeltaDecoder decoder;
  ASSERT_OK(decoder.Read(Of(Payload({1, 2}, kGapCode, kDifferenceCode, {1, 0x40, 0x80})), 200, 2));
  ASSERT_FALSE(decoder.Read(Of({1}), 200, 2).ok());
  Bytes range(200, std::byte{7});
  EXPECT_OK(decoder.ApplyInPlace(absl::MakeSpan(range)));
  EXPECT_EQ(range, Bytes(200, std::byte{7}));
}

}  // namespace
}  // namespace refit
