// Comparing, compiled once for every instruction set worth having; the processor chooses at run time.
#include "common/delta/changes.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "common/delta/delta_format.h"
#include "common/tensor/unaligned.h"

#define HWY_DISABLED_TARGETS (HWY_SVE | HWY_SVE2 | HWY_RVV | HWY_SSSE3 | HWY_AVX3_DL)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "common/delta/changes.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace refit {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

constexpr size_t kWord = 64;           // elements that are compared to one word of bits
constexpr size_t kBlock = 64 * kWord;  // elements that stay in the fastest cache until their differences are taken

// Bit i: element i differs. T is an unsigned type: what it holds is compared bit by bit.
template <typename T>
uint64_t CompareWord(const std::byte* base, const std::byte* now) {
  const hn::ScalableTag<T> tag;
  constexpr size_t kLanes = hn::MaxLanes(tag);
  uint64_t word = 0;
  for (size_t i = 0; i < kWord; i += kLanes) {
    const auto differs = hn::Ne(hn::LoadU(tag, reinterpret_cast<const T*>(base) + i),
                                hn::LoadU(tag, reinterpret_cast<const T*>(now) + i));
    uint8_t bits[sizeof(uint64_t)] = {};
    hn::StoreMaskBits(tag, differs, bits);
    uint64_t part;
    std::memcpy(&part, bits, sizeof(part));
    word |= part << i;
  }
  return word;
}

// Fewer elements than a word has.
template <typename T>
uint64_t CompareRest(const std::byte* base, const std::byte* now, size_t elements) {
  std::byte padded[2][kWord * sizeof(T)] = {};
  std::memcpy(padded[0], base, elements * sizeof(T));
  std::memcpy(padded[1], now, elements * sizeof(T));
  return CompareWord<T>(padded[0], padded[1]);
}

// Writes four, or eight, in any case: few changes need no loop, whose end is hard to foresee.
size_t AppendPositions(uint64_t word, uint32_t first, uint32_t* out) {
  constexpr uint64_t kNeverNone = uint64_t{1} << 63;  // saves a question
  const auto count = static_cast<size_t>(std::popcount(word));
  const auto next = [&] {
    const uint32_t position = first + static_cast<uint32_t>(std::countr_zero(word | kNeverNone));
    word &= word - 1;
    return position;
  };
  for (size_t i = 0; i < 4; ++i) out[i] = next();
  if (count <= 4) return count;
  for (size_t i = 4; i < 8; ++i) out[i] = next();
  for (size_t i = 8; i < count; ++i) out[i] = next();
  return count;
}

template <typename T>
void TakeDifferences(const std::byte* base, const std::byte* now, const uint32_t* positions, size_t count,
                     std::byte* out) {
  for (size_t i = 0; i < count; ++i) {
    const size_t at = positions[i] * sizeof(T);
    const T folded = Fold(static_cast<T>(Load<T>(now + at) - Load<T>(base + at)));
    Store(out + i * sizeof(T), folded);
  }
}

template <typename T>
bool FindIn(const std::byte* base, const std::byte* now, size_t elements, size_t most, Changes& changes) {
  changes.Reserve(std::min(most, elements), sizeof(T));
  changes.count = 0;
  uint32_t* const positions = changes.positions.data();
  std::byte* const numbers = changes.numbers.data();
  size_t count = 0;
  for (size_t block = 0; block < elements; block += kBlock) {
    const size_t end = std::min(elements, block + kBlock);
    const size_t before = count;
    for (size_t i = block; i < end; i += kWord) {
      const size_t at = i * sizeof(T);
      const uint64_t word =
          end - i >= kWord ? CompareWord<T>(base + at, now + at) : CompareRest<T>(base + at, now + at, end - i);
      count += AppendPositions(word, static_cast<uint32_t>(i), positions + count);
      if (count > most) return false;
    }
    TakeDifferences<T>(base, now, positions + before, count - before, numbers + before * sizeof(T));
  }
  changes.count = count;
  return true;
}

bool Find(const std::byte* base, const std::byte* now, size_t elements, size_t element_size, size_t most,
          Changes& changes) {
  const auto find = element_size == 1   ? FindIn<uint8_t>
                    : element_size == 2 ? FindIn<uint16_t>
                    : element_size == 4 ? FindIn<uint32_t>
                                        : FindIn<uint64_t>;
  return find(base, now, elements, most, changes);
}

template <typename T>
size_t SampleIn(const std::byte* base, const std::byte* now, size_t elements) {
  constexpr size_t kWords = kSampledElements / kWord;
  const size_t distance = elements / kWords;
  size_t count = 0;
  for (size_t i = 0; i < kWords; ++i) {
    const size_t at = i * distance * sizeof(T);
    count += static_cast<size_t>(std::popcount(CompareWord<T>(base + at, now + at)));
  }
  return count;
}

size_t Sample(const std::byte* base, const std::byte* now, size_t elements, size_t element_size) {
  const auto sample = element_size == 1   ? SampleIn<uint8_t>
                      : element_size == 2 ? SampleIn<uint16_t>
                      : element_size == 4 ? SampleIn<uint32_t>
                                          : SampleIn<uint64_t>;
  return sample(base, now, elements);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace refit
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace refit {
namespace {

HWY_EXPORT(Find);
HWY_EXPORT(Sample);

template <typename T>
size_t AddIn(const Changes& changes, Direction direction, size_t first, uint64_t skipped, absl::Span<std::byte> bytes) {
  const uint64_t end = skipped + bytes.size() / sizeof(T);
  const T sign = direction == Direction::kForward ? 0 : static_cast<T>(-1);
  const uint32_t* const positions = changes.positions.data();
  const std::byte* const differences = changes.numbers.data();
  size_t i = first;
  for (; i < changes.count && positions[i] < end; ++i) {
    std::byte* const element = bytes.data() + (positions[i] - skipped) * sizeof(T);
    const auto signed_difference = static_cast<T>(static_cast<T>(Load<T>(differences + i * sizeof(T)) ^ sign) - sign);
    const auto value = static_cast<T>(Load<T>(element) + signed_difference);
    Store(element, value);
  }
  return i;
}

}  // namespace

void Changes::Reserve(size_t changes, size_t element_size) {
  constexpr size_t kMore = 64;
  if (positions.size() < changes + kMore) positions.resize(changes + kMore);
  if (numbers.size() < (changes + kMore) * element_size) numbers.resize((changes + kMore) * element_size);
}

bool FindChanges(absl::Span<const std::byte> base, absl::Span<const std::byte> now, size_t element_size, size_t most,
                 Changes& changes) {
  return HWY_DYNAMIC_DISPATCH(Find)(base.data(), now.data(), now.size() / element_size, element_size, most, changes);
}

size_t SampleChanges(absl::Span<const std::byte> base, absl::Span<const std::byte> now, size_t element_size) {
  return HWY_DYNAMIC_DISPATCH(Sample)(base.data(), now.data(), now.size() / element_size, element_size);
}

size_t AddChanges(const Changes& changes, Direction direction, size_t element_size, size_t first, uint64_t skipped,
                  absl::Span<std::byte> bytes) {
  const auto add = element_size == 1   ? AddIn<uint8_t>
                   : element_size == 2 ? AddIn<uint16_t>
                   : element_size == 4 ? AddIn<uint32_t>
                                       : AddIn<uint64_t>;
  return add(changes, direction, first, skipped, bytes);
}

}  // namespace refit
#endif
