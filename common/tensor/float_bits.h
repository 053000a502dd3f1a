// Decodes and encodes the small floating-point types without branches, so that loops over them can be vectorised.
// Private to common/tensor.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace refit {

static_assert(std::endian::native == std::endian::little, "elements are little-endian, and used as they are");
static_assert(std::numeric_limits<float>::is_iec559 && std::numeric_limits<double>::is_iec559);

// `yes` or `no`, without a branch that would prevent vectorisation.
inline uint32_t Select(bool condition, uint32_t yes, uint32_t no) {
  const uint32_t mask = 0U - static_cast<uint32_t>(condition);
  return (yes & mask) | (no & ~mask);
}

inline float DecodeBF16(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

inline uint16_t EncodeBF16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const uint32_t rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
  const bool nan = static_cast<int32_t>(bits & 0x7FFFFFFF) > 0x7F800000;
  return static_cast<uint16_t>(Select(nan, 0x7FC0, rounded));
}

inline float DecodeF16(uint16_t bits) {
  const int32_t magnitude = bits & 0x7FFF;
  const auto sign = static_cast<uint32_t>(bits & 0x8000) << 16;
  // A normal number gets F32's exponent bias. A subnormal one counts units of 2^-24.
  const auto normal = static_cast<uint32_t>(magnitude << 13) + 0x38000000;
  const auto subnormal = std::bit_cast<uint32_t>(static_cast<float>(magnitude) * 0x1p-24F);
  const uint32_t special = (normal + 0x38000000) | Select(magnitude > 0x7C00, 0x00400000, 0);  // NaNs become quiet
  const uint32_t finite = Select(magnitude < 0x0400, subnormal, normal);
  return std::bit_cast<float>(sign | Select(magnitude >= 0x7C00, special, finite));
}

inline uint16_t EncodeF16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (bits >> 16) & 0x8000;
  const auto magnitude = static_cast<int32_t>(bits & 0x7FFFFFFF);
  // Rounding may carry into the exponent, and so to infinity, which is correct.
  const auto normal = static_cast<uint32_t>((magnitude - 0x38000000 + 0xFFF + ((magnitude >> 13) & 1)) >> 13);
  // One unit in the last place of 0.5F is 2^-24, which is also that of F16's subnormals. So the addition rounds
  // correctly.
  const float shifted = std::bit_cast<float>(magnitude) + 0.5F;
  const uint32_t subnormal = std::bit_cast<uint32_t>(shifted) - 0x3F000000;
  const uint32_t finite = Select(magnitude < 0x38800000, subnormal, normal);
  const uint32_t special = Select(magnitude > 0x7F800000, 0x7E00, 0x7C00);
  return static_cast<uint16_t>(sign | Select(magnitude >= 0x47800000, special, finite));
}

// The variant without infinities ("fn"): its largest value is 448. It is NaN only if all bits except the sign are set.
inline double DecodeF8E4M3(uint8_t bits) {
  const int exponent = (bits >> 3) & 0xF;
  const int mantissa = bits & 7;
  const double sign = bits & 0x80 ? -1 : 1;
  if ((bits & 0x7F) == 0x7F) return std::numeric_limits<double>::quiet_NaN();
  return sign * (exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10));
}

// Only an exponent: powers of two from 2^-127 on.
inline double DecodeF8E8M0(uint8_t bits) {
  return bits == 0xFF ? std::numeric_limits<double>::quiet_NaN() : std::ldexp(1.0, bits - 127);
}

// The "fnuz" variants: the exponent bias is larger by one, there are no infinities, and the bits of -0 are the only
// NaN.
inline double DecodeF8Fnuz(uint8_t bits, int mantissa_bits, int bias) {
  if (bits == 0x80) return std::numeric_limits<double>::quiet_NaN();
  const int exponent = (bits & 0x7F) >> mantissa_bits;
  const int mantissa = bits & ((1 << mantissa_bits) - 1);
  const double value = exponent == 0 ? std::ldexp(mantissa, 1 - bias - mantissa_bits)
                                     : std::ldexp((1 << mantissa_bits) + mantissa, exponent - bias - mantissa_bits);
  return bits & 0x80 ? -value : value;
}
inline double DecodeF8E4M3Fnuz(uint8_t bits) { return DecodeF8Fnuz(bits, 3, 8); }
inline double DecodeF8E5M2Fnuz(uint8_t bits) { return DecodeF8Fnuz(bits, 2, 16); }

// The upper half of an F16.
inline double DecodeF8E5M2(uint8_t bits) { return DecodeF16(static_cast<uint16_t>(bits << 8)); }

}  // namespace refit
