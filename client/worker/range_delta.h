// One delta payload, and the passes over memory that use it.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "common/delta/delta_decoder.h"
#include "common/wire/digest.h"

namespace refit {

// For one thread at a time. Keeps its memory for the next payload.
class RangeDelta {
 public:
  // Of a range of so many bytes. An empty payload: nothing has changed. INVALID_ARGUMENT for a malformed one.
  absl::Status Read(absl::Span<const std::byte> payload, uint64_t range_bytes, size_t element_size);

  // Elements that it changes.
  uint64_t changed() const { return is_empty_ ? 0 : decoder_.changed(); }

  // Digests what a range becomes. One pass: each piece is changed and digested in the cache.
  absl::Status Digest(Direction direction, absl::Span<const std::byte> range, TensorDigester& digester);
  // Writes it to `result`, too. `past_cache`: the result is not read soon.
  absl::Status DigestAndWrite(absl::Span<const std::byte> base, absl::Span<std::byte> result, bool past_cache,
                              TensorDigester& digester);
  // Changes the range itself.
  absl::Status Change(Direction direction, absl::Span<std::byte> range) const;

 private:
  absl::StatusOr<absl::Span<const std::byte>> Piece(Direction direction, absl::Span<const std::byte> range, size_t at);

  DeltaDecoder decoder_;
  bool is_empty_ = true;
  std::vector<std::byte> piece_;
};

}  // namespace refit
