// What has changed in a range of elements, encoded. proto/README.md ("Delta payloads") describes the payload.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/delta/changes.h"

namespace refit {

struct DeltaLimits {
  // Of the elements. Above it encoding takes longer than a fast link takes for the bytes that it would save; on a slow
  // one up to 1 may pay.
  double changed = 0.125;
};

struct EncodedDelta {
  // kRaw: a delta is not worth it, or would not be smaller than the range itself.
  enum class Kind { kUnchanged, kDelta, kRaw };

  Kind kind = Kind::kUnchanged;
  std::vector<std::byte> payload;  // of kDelta
  uint64_t changed = 0;            // elements; not counted for kRaw
};

// Keeps its memory for the next range; for one thread at a time.
class DeltaEncoder {
 public:
  // What turns `base` into `now`, two states of one range of whole elements. Their bits are compared, whatever they
  // stand for: 0 and -0 differ, equal NaNs do not. INVALID_ARGUMENT if the sizes do not fit each other.
  absl::StatusOr<EncodedDelta> Encode(absl::Span<const std::byte> base, absl::Span<const std::byte> now,
                                      size_t element_size, const DeltaLimits& limits = {});

 private:
  EncodedDelta EncodeChanges(size_t element_size, size_t dense_bytes) const;

  Changes changes_;
};

}  // namespace refit
