#include "common/tensor/kernels.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <complex>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "common/tensor/kernel_choice.h"

namespace refit {
namespace {

using Bytes = std::vector<std::byte>;

// One instruction set after the other, then the best again.
void ForEachTarget(const auto& check) {
  for (const std::string& target : KernelTargets()) {
    SCOPED_TRACE(target);
    ASSERT_TRUE(UseKernelTarget(target));
    check();
  }
  ASSERT_TRUE(UseKernelTarget(""));
}

// By every instruction set, all of which must agree.
template <typename T>
std::vector<T> Convert(DType from, DType to, const auto& values) {
  std::vector<T> first;
  ForEachTarget([&] {
    std::vector<T> out(values.size());
    ConvertElements(from, to, reinterpret_cast<const std::byte*>(values.data()),
                    reinterpret_cast<std::byte*>(out.data()), static_cast<int64_t>(values.size()));
    if (first.empty()) first = out;
    // Not by ==, which NaNs fail.
    EXPECT_EQ(std::memcmp(first.data(), out.data(), out.size() * sizeof(T)), 0);
  });
  return first;
}

TEST(KernelTargetsTest, KnowsWhatThisProcessorHas) {
  EXPECT_THAT(KernelTargets(), testing::Not(testing::IsEmpty()));
  EXPECT_FALSE(UseKernelTarget("abacus"));
}

std::vector<uint16_t> AllPatterns() {
  std::vector<uint16_t> all(65536);
  for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<uint16_t>(i);
  return all;
}

// A small float read field by field.
double ReferenceDecode(uint32_t bits, int exponent_bits, int mantissa_bits) {
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const int exponent = (bits >> mantissa_bits) & ((1 << exponent_bits) - 1);
  const int mantissa = bits & ((1 << mantissa_bits) - 1);
  const double sign = (bits >> (exponent_bits + mantissa_bits)) & 1 ? -1 : 1;
  if (exponent == (1 << exponent_bits) - 1) {
    return mantissa == 0 ? sign * std::numeric_limits<double>::infinity() : std::numeric_limits<double>::quiet_NaN();
  }
  if (exponent == 0) return sign * std::ldexp(mantissa, 1 - bias - mantissa_bits);
  return sign * std::ldexp((1 << mantissa_bits) + mantissa, exponent - bias - mantissa_bits);
}

uint32_t Bits(float value) { return std::bit_cast<uint32_t>(value); }

// Every finite pattern `p` >= 0 of the type, with the values between it and its neighbour: below the middle goes down,
// above it up, and the middle itself to the even one. `top` is the largest finite pattern.
void CheckRounding(DType to, int exponent_bits, int mantissa_bits, uint16_t top) {
  std::vector<float> values;
  std::vector<uint16_t> expected;
  const auto add = [&](float value, uint32_t pattern) {
    values.push_back(value);
    expected.push_back(static_cast<uint16_t>(pattern));
    values.push_back(-value);
    expected.push_back(static_cast<uint16_t>(pattern | 0x8000));
  };
  for (uint32_t p = 0; p <= top; ++p) {
    const double here = ReferenceDecode(p, exponent_bits, mantissa_bits);
    // The neighbour of the largest is where the next step would be: infinity.
    const double next = p < top ? ReferenceDecode(p + 1, exponent_bits, mantissa_bits)
                                : 2 * here - ReferenceDecode(p - 1, exponent_bits, mantissa_bits);
    const auto middle = static_cast<float>((here + next) / 2);
    ASSERT_EQ(middle, (here + next) / 2);
    add(static_cast<float>(here), p);
    add(middle, p % 2 == 0 ? p : p + 1);
    add(std::nextafterf(middle, 0), p);
    add(std::nextafterf(middle, std::numeric_limits<float>::infinity()), p + 1);
  }
  add(std::numeric_limits<float>::infinity(), top + 1);
  add(std::numeric_limits<float>::max(), top + 1);
  const auto got = Convert<uint16_t>(DType::kF32, to, values);
  for (size_t i = 0; i < got.size(); ++i) ASSERT_EQ(got[i], expected[i]) << values[i];
}

TEST(ConvertTest, RoundsToF16AsIeee) { CheckRounding(DType::kF16, 5, 10, 0x7BFF); }

TEST(ConvertTest, RoundsToBF16AsIeee) {
  // In BF16 the largest float rounds up to infinity too, and every middle is a float.
  CheckRounding(DType::kBF16, 8, 7, 0x7F7F);
}

TEST(ConvertTest, TinyValuesBecomeSignedZeroInF16) {
  const std::vector<float> values = {1e-30F, -1e-30F,  std::numeric_limits<float>::denorm_min(),
                                     -0.0F,  0x1p-25F, -0x1p-25F};
  EXPECT_EQ(Convert<uint16_t>(DType::kF32, DType::kF16, values),
            (std::vector<uint16_t>{0, 0x8000, 0, 0x8000, 0, 0x8000}));
}

TEST(ConvertTest, WidensEveryPattern) {
  const struct {
    DType dtype;
    int exponent_bits;
    int mantissa_bits;
  } cases[] = {{DType::kF16, 5, 10}, {DType::kBF16, 8, 7}};
  const std::vector<uint16_t> all = AllPatterns();
  for (const auto& c : cases) {
    const auto floats = Convert<float>(c.dtype, DType::kF32, all);
    const auto doubles = Convert<double>(c.dtype, DType::kF64, all);
    for (uint32_t p = 0; p < 65536; ++p) {
      const double expected = ReferenceDecode(p, c.exponent_bits, c.mantissa_bits);
      if (std::isnan(expected)) {
        ASSERT_TRUE(std::isnan(floats[p]) && std::isnan(doubles[p]));
        ASSERT_EQ(std::signbit(floats[p]), p >= 0x8000);
        continue;
      }
      ASSERT_EQ(std::bit_cast<uint64_t>(doubles[p]), std::bit_cast<uint64_t>(expected));
      ASSERT_EQ(Bits(floats[p]), Bits(static_cast<float>(expected)));
      ASSERT_EQ(std::bit_cast<uint64_t>(ElementAsDouble(c.dtype, reinterpret_cast<const std::byte*>(all.data()), p)),
                std::bit_cast<uint64_t>(expected));
    }
  }
}

TEST(ConvertTest, EveryPatternComesBack) {
  const std::vector<uint16_t> all = AllPatterns();
  for (DType dtype : {DType::kF16, DType::kBF16}) {
    const bool half = dtype == DType::kF16;
    const auto by_float = Convert<uint16_t>(DType::kF32, dtype, Convert<float>(dtype, DType::kF32, all));
    const auto by_double = Convert<uint16_t>(DType::kF64, dtype, Convert<double>(dtype, DType::kF64, all));
    for (uint32_t p = 0; p < 65536; ++p) {
      const bool nan = (p & 0x7FFF) > (half ? 0x7C00 : 0x7F80);
      const uint32_t expected = !nan ? p : half ? (p & 0x8000) | 0x7E00 : 0x7FC0;
      ASSERT_EQ(by_float[p], expected);
      ASSERT_EQ(by_double[p], expected);
    }
  }
}

TEST(ConvertTest, BetweenF16AndBF16GoesThroughF32) {
  const std::vector<uint16_t> all = AllPatterns();
  EXPECT_EQ(Convert<uint16_t>(DType::kF16, DType::kBF16, all),
            Convert<uint16_t>(DType::kF32, DType::kBF16, Convert<float>(DType::kF16, DType::kF32, all)));
  EXPECT_EQ(Convert<uint16_t>(DType::kBF16, DType::kF16, all),
            Convert<uint16_t>(DType::kF32, DType::kF16, Convert<float>(DType::kBF16, DType::kF32, all)));
}

TEST(ConvertTest, F64GoesThroughF32) {
  // Just above the middle of two BF16 values, by less than F32 can tell: rounds to even, as PyTorch does.
  const std::vector<double> values = {1.00390625 + 1e-12, 1.0, -2.5, 1e300, -1e300};
  EXPECT_EQ(Convert<uint16_t>(DType::kF64, DType::kBF16, values),
            (std::vector<uint16_t>{0x3F80, 0x3F80, 0xC020, 0x7F80, 0xFF80}));
  EXPECT_EQ(Convert<float>(DType::kF64, DType::kF32, values)[2], -2.5F);
  EXPECT_EQ(Convert<double>(DType::kF32, DType::kF64, std::vector<float>{0.1F})[0], static_cast<double>(0.1F));
}

TEST(ConvertTest, NaNsBecomeQuiet) {
  const std::vector<uint32_t> nans = {0x7F800001, 0xFF800001, 0x7FFFFFFF, 0xFFFFFFFF};
  EXPECT_EQ(Convert<uint16_t>(DType::kF32, DType::kBF16, nans), (std::vector<uint16_t>(4, 0x7FC0)));
  EXPECT_EQ(Convert<uint16_t>(DType::kF32, DType::kF16, nans), (std::vector<uint16_t>{0x7E00, 0xFE00, 0x7E00, 0xFE00}));
}

TEST(ConvertTest, EqualTypesKeepEveryBit) {
  std::mt19937_64 random(1);
  for (DType dtype : kAllDTypes) {
    std::vector<uint64_t> values(33);
    for (uint64_t& value : values) value = random();
    const auto count = static_cast<int64_t>(values.size() * 8 / ElementSize(dtype));
    std::vector<uint64_t> out(values.size());
    ConvertElements(dtype, dtype, reinterpret_cast<const std::byte*>(values.data()),
                    reinterpret_cast<std::byte*>(out.data()), count);
    EXPECT_EQ(out, values);
  }
  ConvertElements(DType::kF32, DType::kF32, nullptr, nullptr, 0);
  ConvertElements(DType::kF32, DType::kBF16, nullptr, nullptr, 0);
}

TEST(ConvertTest, KnowsWhatConverts) {
  for (DType from : kAllDTypes) {
    for (DType to : kAllDTypes) {
      EXPECT_EQ(CanConvert(from, to), from == to || (IsCastable(from) && IsCastable(to)));
      EXPECT_EQ(CanTranspose(from, to), CanConvert(from, to) && PackedBits(from) == 0);
    }
  }
}

// A matrix within memory of random bytes, at any alignment, whose rows are `stride` elements apart.
struct Matrix {
  Matrix(DType dtype, int64_t rows, int64_t stride, size_t misalignment, uint32_t seed)
      : bytes(static_cast<size_t>(rows * stride) * ElementSize(dtype) + misalignment + 64) {
    std::mt19937 random(seed);
    for (std::byte& b : bytes) b = static_cast<std::byte>(random());
    const auto address = reinterpret_cast<uintptr_t>(bytes.data());
    offset = (64 - address % 64) % 64 + misalignment;
  }
  std::byte* data() { return bytes.data() + offset; }
  Bytes bytes;
  size_t offset = 0;
};

// Element by element, by ConvertElements, which has tests of its own.
void ReferenceTranspose(DType from, DType to, const std::byte* src, int64_t src_stride, std::byte* dst,
                        int64_t dst_stride, int64_t rows, int64_t cols) {
  const auto from_size = static_cast<int64_t>(ElementSize(from));
  const auto to_size = static_cast<int64_t>(ElementSize(to));
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) {
      ConvertElements(from, to, src + (r * src_stride + c) * from_size, dst + (c * dst_stride + r) * to_size, 1);
    }
  }
}

void CheckTranspose(DType from, DType to, int64_t rows, int64_t cols, int64_t src_gap, int64_t dst_gap,
                    size_t src_misalignment, size_t dst_misalignment) {
  SCOPED_TRACE(testing::Message() << Name(from) << " -> " << Name(to) << " [" << rows << ", " << cols << "] gaps "
                                  << src_gap << " " << dst_gap << " misaligned " << src_misalignment << " "
                                  << dst_misalignment);
  Matrix src(from, rows, cols + src_gap, src_misalignment, 7);
  Matrix dst(to, cols, rows + dst_gap, dst_misalignment, 8);
  Bytes expected = dst.bytes;
  ReferenceTranspose(from, to, src.data(), cols + src_gap, expected.data() + dst.offset, rows + dst_gap, rows, cols);
  const Bytes before = dst.bytes;
  std::vector<std::string> ways = TransposeWays();
  ways.emplace_back("");  // whichever is chosen
  ForEachTarget([&] {
    for (const std::string& way : ways) {
      ASSERT_TRUE(UseTransposeWay(way));
      std::copy(before.begin(), before.end(), dst.bytes.begin());
      TransposeElements(from, to, src.data(), cols + src_gap, dst.data(), rows + dst_gap, rows, cols);
      // Also what lies between and around the rows.
      ASSERT_TRUE(dst.bytes == expected) << way;
    }
  });
}

TEST(TransposeTest, EverySizeOfElement) {
  const std::pair<int64_t, int64_t> extents[] = {{0, 0},   {0, 5},    {5, 0},     {1, 1},     {1, 100}, {100, 1},
                                                 {2, 3},   {7, 7},    {8, 8},     {16, 16},   {17, 15}, {64, 64},
                                                 {65, 63}, {31, 200}, {128, 128}, {129, 257}, {300, 40}};
  for (DType dtype : {DType::kU8, DType::kF8E4M3, DType::kBF16, DType::kI32, DType::kF64}) {
    for (const auto& [rows, cols] : extents) {
      CheckTranspose(dtype, dtype, rows, cols, 0, 0, 0, 0);
      CheckTranspose(dtype, dtype, rows, cols, 3, 5, 1, 3);
    }
  }
}

TEST(TransposeTest, EveryCast) {
  for (DType from : kAllDTypes) {
    for (DType to : kAllDTypes) {
      if (from == to || !CanConvert(from, to)) continue;
      CheckTranspose(from, to, 37, 70, 0, 0, 0, 0);
      CheckTranspose(from, to, 130, 67, 2, 1, 5, 7);
    }
  }
}

TEST(TransposeTest, RandomShapesAndStrides) {
  std::mt19937 random(42);
  const auto pick = [&](int64_t limit) { return static_cast<int64_t>(random() % static_cast<uint32_t>(limit)); };
  const std::pair<DType, DType> types[] = {{DType::kBF16, DType::kBF16}, {DType::kF32, DType::kF32},
                                           {DType::kF32, DType::kBF16},  {DType::kF32, DType::kF16},
                                           {DType::kI64, DType::kI64},   {DType::kBool, DType::kBool}};
  for (int i = 0; i < 200; ++i) {
    const auto& [from, to] = types[pick(std::size(types))];
    CheckTranspose(from, to, pick(200), pick(200), pick(40), pick(40), static_cast<size_t>(pick(16)),
                   static_cast<size_t>(pick(16)));
  }
}

TEST(TransposeTest, LargeOnesThatAreWrittenPastTheCache) {
  // Destinations beyond 1 MiB, with lines whole and cut.
  CheckTranspose(DType::kBF16, DType::kBF16, 2816, 1000, 0, 0, 0, 0);
  CheckTranspose(DType::kBF16, DType::kBF16, 2810, 1001, 3, 6, 0, 0);
  CheckTranspose(DType::kF32, DType::kBF16, 2816, 1000, 0, 0, 0, 0);
  CheckTranspose(DType::kU8, DType::kU8, 4090, 2001, 0, 6, 2, 0);
  CheckTranspose(DType::kF64, DType::kF64, 800, 801, 0, 0, 0, 0);
  CheckTranspose(DType::kBF16, DType::kBF16, 2816, 1000, 0, 0, 0, 2);
  CheckTranspose(DType::kBF16, DType::kBF16, 2816, 1000, 0, 0, 1, 1);  // not even on elements' boundaries
  CheckTranspose(DType::kBF16, DType::kBF16, 700, 1000, 0, 2116, 0, 26);
}

TEST(TransposeTest, ChoosesAWayOnceItHasTriedAll) {
  EXPECT_FALSE(UseTransposeWay("by hand"));
  ASSERT_TRUE(UseTransposeWay(""));
  const int64_t rows = 1024;
  Bytes src(rows * rows, std::byte{1});
  Bytes dst(rows * rows);
  for (size_t i = 0; i < WayTrial::kTurns * TransposeWays().size(); ++i) {
    TransposeElements(DType::kU8, DType::kU8, src.data(), rows, dst.data(), rows, rows, rows);
  }
  EXPECT_THAT(TransposeWays(), testing::Contains(ChosenTransposeWay(DType::kU8, DType::kU8)));
}

// How long a way's piece takes in its given turn, counted from 0.
using PieceTime = std::chrono::nanoseconds (*)(size_t way, size_t turn);

size_t Choose(PieceTime time) {
  WayTrial trial;
  for (size_t turn = 0; turn < WayTrial::kTurns; ++turn) {
    for (size_t i = 0; i < kTransposeWays.size(); ++i) {
      EXPECT_FALSE(trial.chosen().has_value());
      const size_t way = trial.Next();
      trial.Took(way, 1 << 20, time(way, turn));
    }
  }
  EXPECT_EQ(trial.Next(), trial.chosen());
  return trial.chosen().value();
}

using std::chrono::microseconds;

TEST(WayTrialTest, TheClearlyFastestIsChosen) {
  EXPECT_EQ(Choose([](size_t way, size_t) -> std::chrono::nanoseconds { return microseconds(way == 2 ? 100 : 150); }),
            2);
}

TEST(WayTrialTest, OtherwiseTheUsualOne) {
  EXPECT_EQ(Choose([](size_t way, size_t) -> std::chrono::nanoseconds { return microseconds(way == 1 ? 95 : 100); }),
            0);
}

TEST(WayTrialTest, TurnsThatWereDisturbedDoNotCount) {
  EXPECT_EQ(Choose([](size_t way, size_t turn) -> std::chrono::nanoseconds {
              return microseconds(way == 0 && turn > 0 ? 900 : 100);
            }),
            0);
}

TEST(CopyPastCacheTest, CopiesWhateverTheAlignmentAndNothingBesides) {
  Bytes source(4096);
  for (size_t i = 0; i < source.size(); ++i) source[i] = static_cast<std::byte>(i * 31 % 251);
  ForEachTarget([&] {
    for (const size_t size : {0, 1, 63, 64, 65, 127, 128, 200, 1000, 3000}) {
      for (size_t from = 0; from < 65; from += 13) {
        for (size_t to = 0; to < 130; to += 7) {
          Bytes expected(size + 260, std::byte{0xEE});
          Bytes got = expected;
          std::copy_n(source.begin() + static_cast<std::ptrdiff_t>(from), size,
                      expected.begin() + static_cast<std::ptrdiff_t>(to));
          CopyPastCache(source.data() + from, got.data() + to, size);
          ASSERT_EQ(got, expected) << size << " bytes from " << from << " to " << to;
        }
      }
    }
  });
  CopyPastCache(nullptr, nullptr, 0);
}

TEST(FillOnesTest, WritesOneOfEveryType) {
  for (DType dtype : kAllDTypes) {
    SCOPED_TRACE(std::string(Name(dtype)));
    Bytes bytes(5 * ElementSize(dtype) + 1, std::byte{0xEE});
    if (PackedBits(dtype) != 0) continue;
    FillOnes(dtype, bytes.data(), 5);
    if (dtype == DType::kC64) {
      const auto* values = reinterpret_cast<const std::complex<float>*>(bytes.data());
      EXPECT_EQ(std::vector(values, values + 5), std::vector(5, std::complex<float>(1, 0)));
      continue;
    }
    for (int64_t i = 0; i < 5; ++i) EXPECT_EQ(ElementAsDouble(dtype, bytes.data(), i), 1.0);
    EXPECT_EQ(bytes.back(), std::byte{0xEE});
  }
}

// Of the definitions: the formats' papers for FNUZ (arXiv:2206.02915) and OCP's MX specification 1.0 for E8M0.
TEST(ElementAsDoubleTest, DecodesScalesAndTheFnuzVariants) {
  const auto decode = [](DType dtype, int bits) {
    const auto byte = static_cast<std::byte>(bits);
    return ElementAsDouble(dtype, &byte, 0);
  };
  EXPECT_EQ(decode(DType::kF8E8M0, 0), std::ldexp(1.0, -127));
  EXPECT_EQ(decode(DType::kF8E8M0, 130), 8);
  EXPECT_EQ(decode(DType::kF8E8M0, 0xFE), std::ldexp(1.0, 127));
  EXPECT_TRUE(std::isnan(decode(DType::kF8E8M0, 0xFF)));
  for (const DType dtype : {DType::kF8E4M3Fnuz, DType::kF8E5M2Fnuz}) {
    EXPECT_EQ(decode(dtype, 0), 0);
    EXPECT_EQ(decode(dtype, 0x40), 1);
    EXPECT_EQ(decode(dtype, 0xC0), -1);
    EXPECT_TRUE(std::isnan(decode(dtype, 0x80)));
  }
  EXPECT_EQ(decode(DType::kF8E4M3Fnuz, 0x7F), 240);
  EXPECT_EQ(decode(DType::kF8E4M3Fnuz, 0x01), std::ldexp(1.0, -10));
  EXPECT_EQ(decode(DType::kF8E5M2Fnuz, 0x7F), 57344);
  EXPECT_EQ(decode(DType::kF8E5M2Fnuz, 0x81), -std::ldexp(1.0, -17));
}

TEST(ElementAsDoubleTest, ReadsUnsignedIntegers) {
  const uint64_t most = ~uint64_t{0};
  const auto* bytes = reinterpret_cast<const std::byte*>(&most);
  EXPECT_EQ(ElementAsDouble(DType::kU16, bytes, 1), 65535);
  EXPECT_EQ(ElementAsDouble(DType::kU32, bytes, 1), 4294967295.0);
  EXPECT_EQ(ElementAsDouble(DType::kU64, bytes, 0), std::ldexp(1.0, 64));
}

TEST(ElementAsDoubleTest, WhatIsNoNumberIsNaN) {
  const std::byte bytes[8] = {};
  for (DType dtype : kAllDTypes)
    EXPECT_EQ(std::isnan(ElementAsDouble(dtype, bytes, 0)), !IsNumber(dtype)) << Name(dtype);
}

TEST(ElementAsDoubleTest, DecodesEveryF8) {
  for (uint32_t p = 0; p < 256; ++p) {
    const auto byte = static_cast<std::byte>(p);
    const double e5m2 = ReferenceDecode(p, 5, 2);
    const double got = ElementAsDouble(DType::kF8E5M2, &byte, 0);
    EXPECT_TRUE(std::isnan(e5m2) ? std::isnan(got) : got == e5m2 && std::signbit(got) == std::signbit(e5m2)) << p;
    const double e4m3 = ElementAsDouble(DType::kF8E4M3, &byte, 0);
    if ((p & 0x7F) == 0x7F) {
      EXPECT_TRUE(std::isnan(e4m3));
    } else if ((p & 0x78) == 0x78) {  // where IEEE would have infinity and NaN: the largest numbers
      EXPECT_EQ(e4m3, (p & 0x80 ? -1 : 1) * (256.0 + 32 * (p & 7)));
    } else {
      EXPECT_EQ(e4m3, ReferenceDecode(p, 4, 3));
    }
  }
  const std::byte largest{0x7E};
  EXPECT_EQ(ElementAsDouble(DType::kF8E4M3, &largest, 0), 448);
}

TEST(ElementAsDoubleTest, DecodesIntegers) {
  const int64_t values[] = {-2, 3};
  const auto* bytes = reinterpret_cast<const std::byte*>(values);
  EXPECT_EQ(ElementAsDouble(DType::kI64, bytes, 0), -2);
  EXPECT_EQ(ElementAsDouble(DType::kI64, bytes, 1), 3);
  EXPECT_EQ(ElementAsDouble(DType::kI32, bytes, 0), -2);
  EXPECT_EQ(ElementAsDouble(DType::kI16, bytes, 3), -1);
  EXPECT_EQ(ElementAsDouble(DType::kI8, bytes, 0), -2);
  EXPECT_EQ(ElementAsDouble(DType::kU8, bytes, 0), 254);
  EXPECT_EQ(ElementAsDouble(DType::kBool, bytes, 8), 1);
  EXPECT_EQ(ElementAsDouble(DType::kBool, bytes, 9), 0);
  EXPECT_TRUE(std::isnan(ElementAsDouble(static_cast<DType>(99), bytes, 0)));
}

}  // namespace
}  // namespace refit
