// Deltas of one range from version to version, as a single one.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/delta/delta_encoder.h"

namespace refit {

// What all payloads change that are applied one after the other. The base is not needed: differences add up, and what
// comes back to where it was drops out. Takes memory for twice the range. INVALID_ARGUMENT, saying which, if a payload
// is malformed.
absl::StatusOr<EncodedDelta> ComposeDeltas(absl::Span<const absl::Span<const std::byte>> payloads, uint64_t range_bytes,
                                           size_t element_size, const DeltaLimits& limits = {});

}  // namespace refit
