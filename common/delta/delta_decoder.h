// Reads what DeltaEncoder made, and applies it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "common/delta/changes.h"

namespace refit {

// Keeps its memory for the next payload; for one thread at a time.
//
// A payload is checked whole, and read into memory of the decoder's own, before any byte of a range is written. It
// cannot say whether a range is the right base: applied to another, or twice, it makes other bytes without complaint.
// Digests of the result tell.
class DeltaDecoder {
 public:
  // Of a range of so many bytes. INVALID_ARGUMENT, and nothing to apply, for a payload that is damaged, or does not fit
  // elements of this size and number. Takes memory for at most one number of 32 bits and one element for each element
  // of the range, and only if the payload is long enough for as many changes.
  absl::Status Read(absl::Span<const std::byte> payload, uint64_t range_bytes, size_t element_size);

  // Elements that the payload that was read changes.
  uint64_t changed() const { return changes_.count; }

  // The ranges are as long as Read was told, and do not overlap. INVALID_ARGUMENT, and nothing written, otherwise.
  absl::Status Apply(absl::Span<const std::byte> base, absl::Span<std::byte> result) const;
  absl::Status ApplyInPlace(absl::Span<std::byte> range) const;

  // Undoes ApplyInPlace: differences are taken away again. So whoever keeps a payload can go back.
  absl::Status RevertInPlace(absl::Span<std::byte> range) const;

  // Either of them, for a piece of the range that begins `at` bytes in it. Pieces are whole elements.
  absl::Status ChangePiece(Direction direction, uint64_t at, absl::Span<std::byte> piece) const;

 private:
  absl::Status ReadStreams(absl::Span<const std::byte> payload, uint64_t range_bytes, size_t element_size);
  absl::Status CheckSize(size_t bytes) const;

  Changes changes_;
  uint64_t range_bytes_ = 0;
  size_t element_size_ = 1;
};

}  // namespace refit
