// Deltas of one range from version to version, as a single one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/delta/delta_decoder.h"
#include "common/delta/delta_encoder.h"

namespace refit {

// Keeps its memory, which is about twice the range, for the next chain; for one thread at a time.
class DeltaComposer {
 public:
  // What all payloads change that are applied one after the other. The base is not needed: differences add up, and what
  // comes back to where it was drops out. INVALID_ARGUMENT, saying which, if a payload is malformed.
  absl::StatusOr<EncodedDelta> Compose(absl::Span<const absl::Span<const std::byte>> payloads, uint64_t range_bytes,
                                       size_t element_size, const DeltaLimits& limits = {});

 private:
  DeltaDecoder decoder_;
  DeltaEncoder encoder_;
  std::vector<std::byte> sums_;
  std::vector<std::byte> zeros_;
};

}  // namespace refit
