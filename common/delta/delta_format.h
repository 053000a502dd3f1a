// The numbers of the delta payload; proto/README.md ("Delta payloads") is the description that others read.
//
// A number v is a symbol, which an entropy code stands for, and plain bits behind it: v's three highest bits and its
// length are in the symbol. So 0 to 7 are symbols of their own, and each power of two above is four.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace refit {

inline constexpr int kSymbols = 252;                                         // of all numbers below 2^64
inline constexpr int kMaxCodeLength = 10;                                    // bits of the longest code of a symbol
inline constexpr size_t kMaxDeltaHeader = 2 * (1 + kSymbols) + 1 + 10 + 10;  // bytes in front of the two streams

// Positions are 32-bit numbers, and sums of as many gaps do not overflow.
inline constexpr uint64_t kMaxDeltaElements = uint64_t{1} << 31;

constexpr int PlainBits(uint64_t number) { return static_cast<int>(std::bit_width(number | 4)) - 3; }
constexpr int SymbolOf(uint64_t number) {
  const int plain = PlainBits(number);
  return 4 * plain + static_cast<int>(number >> plain);
}
constexpr int PlainBitsOfSymbol(int symbol) { return std::max(0, symbol / 4 - 1); }
constexpr int HighBitsOfSymbol(int symbol) { return symbol - 4 * PlainBitsOfSymbol(symbol); }

static_assert(SymbolOf(~uint64_t{0}) == kSymbols - 1);

// What an element of type T changes by, folded so that small steps either way are small numbers: -1, +1, -2, +2 are 0,
// 1, 2, 3. Differences are modulo T's range, and never zero.
template <typename T>
constexpr T Fold(T difference) {
  const T sign = static_cast<T>(-(difference >> (8 * sizeof(T) - 1)));
  return static_cast<T>(static_cast<T>(static_cast<T>(difference << 1) ^ sign) - 1);
}
template <typename T>
constexpr T Unfold(T folded) {
  const T zigzag = static_cast<T>(folded + 1);
  return static_cast<T>(static_cast<T>(zigzag >> 1) ^ static_cast<T>(-(zigzag & 1)));
}

static_assert(Fold<uint8_t>(0xff) == 0 && Fold<uint8_t>(1) == 1 && Fold<uint8_t>(0xfe) == 2 && Fold<uint8_t>(2) == 3);
static_assert(Unfold<uint8_t>(0) == 0xff && Unfold<uint8_t>(254) == 0x80);

// The largest folded difference of elements of so many bytes.
constexpr uint64_t MaxFolded(size_t element_size) { return (~uint64_t{0} >> (64 - 8 * element_size)) - 1; }

constexpr bool IsElementSize(size_t size) { return size == 1 || size == 2 || size == 4 || size == 8; }

}  // namespace refit
