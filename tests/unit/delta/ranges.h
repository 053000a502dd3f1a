// Ranges of elements and what changes in them, at random, for the tests of deltas.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "absl/types/span.h"

namespace refit {

using Bytes = std::vector<std::byte>;

// A copy of exactly these bytes, so that AddressSanitizer sees any access beside them; not aligned.
class Exactly {
 public:
  explicit Exactly(absl::Span<const std::byte> bytes)
      : size_(bytes.size()), memory_(std::make_unique<std::byte[]>(size_ + 1)) {
    std::copy(bytes.begin(), bytes.end(), memory_.get() + 1);
  }
  absl::Span<std::byte> span() { return {memory_.get() + 1, size_}; }
  absl::Span<const std::byte> span() const { return {memory_.get() + 1, size_}; }

 private:
  size_t size_;
  std::unique_ptr<std::byte[]> memory_;
};

inline uint64_t ElementAt(absl::Span<const std::byte> range, size_t element_size, size_t i) {
  uint64_t value = 0;
  std::memcpy(&value, range.data() + i * element_size, element_size);
  return value;
}
inline void SetElement(absl::Span<std::byte> range, size_t element_size, size_t i, uint64_t value) {
  std::memcpy(range.data() + i * element_size, &value, element_size);
}

inline uint64_t CountChanged(absl::Span<const std::byte> a, absl::Span<const std::byte> b, size_t element_size) {
  uint64_t count = 0;
  for (size_t i = 0; i < a.size() / element_size; ++i) {
    count += ElementAt(a, element_size, i) != ElementAt(b, element_size, i);
  }
  return count;
}

enum class Step { kUlps, kAnyBits, kSignOrNan, kAlike, kMostlyOneUlp };

class RandomRanges {
 public:
  explicit RandomRanges(uint64_t seed) : random_(seed) {}

  uint64_t Below(uint64_t bound) { return random_() % bound; }

  // Of random bits, some of them zeros, infinities and NaNs of any element type.
  Bytes Range(size_t elements, size_t element_size) {
    Bytes range(elements * element_size);
    for (size_t i = 0; i < elements; ++i) SetElement(absl::MakeSpan(range), element_size, i, Value());
    return range;
  }

  // Each element changes with this probability; where `lumps`, many neighbours do and most do not.
  Bytes Changed(const Bytes& range, size_t element_size, double probability, Step step, bool lumps = false) {
    Bytes changed = range;
    bool within = true;
    for (size_t i = 0; i < range.size() / element_size; ++i) {
      if (lumps && Below(32) == 0) within = Below(4) == 0;
      if (!within || !Happens(probability)) continue;
      const uint64_t old = ElementAt(range, element_size, i);
      SetElement(absl::MakeSpan(changed), element_size, i, Next(old, element_size, step));
    }
    return changed;
  }

 private:
  bool Happens(double probability) {
    return static_cast<double>(random_() >> 11) < probability * static_cast<double>(uint64_t{1} << 53);
  }

  uint64_t Value() {
    constexpr uint64_t kSpecial[] = {0,          uint64_t{1} << 63,  0x7f807f807f807f80, 0xffc1ffc1ffc1ffc1,
                                     0x7f7f7f7f, 0x8080808080808080, ~uint64_t{0}};
    return Below(8) == 0 ? kSpecial[Below(std::size(kSpecial))] : random_();
  }

  uint64_t Next(uint64_t old, size_t element_size, Step step) {
    constexpr uint64_t kUlps[] = {1, 2, ~uint64_t{0}, ~uint64_t{1}};
    switch (step) {
      case Step::kUlps:
        return old + kUlps[Below(4)];
      case Step::kAnyBits:
        return Value();
      case Step::kSignOrNan:
        return Below(2) == 0 ? old ^ uint64_t { 1 } << (8 * element_size - 1) : ~uint64_t{0} << Below(3);
      case Step::kAlike:
        return old + 1;
      case Step::kMostlyOneUlp:
        return old + kUlps[Below(2) * 2 + (Below(25) == 0 ? 1 : 0)];
    }
    return old;
  }

  std::mt19937_64 random_;
};

}  // namespace refit
