// Which elements of a range differ, and by what: found by comparing bits, never numbers, and added to a range again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace refit {

// Keeps its memory for the next range.
struct Changes {
  size_t count = 0;
  std::vector<uint32_t> positions;  // `count` of them mean something; they ascend
  std::vector<std::byte> numbers;   // one for each, as wide as an element: a difference, or a folded one

  // Room for so many, and for a few more that are written and mean nothing.
  void Reserve(size_t changes, size_t element_size);
};

// Both ranges hold whole elements and are equally long. Differences are folded. False if more than `most` differ.
bool FindChanges(absl::Span<const std::byte> base, absl::Span<const std::byte> now, size_t element_size, size_t most,
                 Changes& changes);

// How many of 2048 elements differ that lie at even distances. There are at least as many.
inline constexpr size_t kSampledElements = 2048;
size_t SampleChanges(absl::Span<const std::byte> base, absl::Span<const std::byte> now, size_t element_size);

enum class Direction { kForward, kBack };

// Adds the differences to the elements, or takes them away. The first `skipped` elements of the range are not there:
// `bytes` begins behind them. Goes from change `first` on to the last that lies in `bytes`; returns the one after it.
size_t AddChanges(const Changes& changes, Direction direction, size_t element_size, size_t first, uint64_t skipped,
                  absl::Span<std::byte> bytes);

}  // namespace refit
