#include "common/delta/compose_deltas.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "common/delta/delta_decoder.h"

namespace refit {

absl::StatusOr<EncodedDelta> ComposeDeltas(absl::Span<const absl::Span<const std::byte>> payloads, uint64_t range_bytes,
                                           size_t element_size, const DeltaLimits& limits) {
  // Applied to zeros they leave the sums of their differences.
  std::vector<std::byte> sums;
  DeltaDecoder decoder;
  for (size_t i = 0; i < payloads.size(); ++i) {
    const absl::Status read = decoder.Read(payloads[i], range_bytes, element_size);
    if (!read.ok()) {
      return absl::Status(read.code(), absl::StrCat("delta ", i + 1, " of ", payloads.size(), ": ", read.message()));
    }
    sums.resize(range_bytes);
    if (absl::Status applied = decoder.ApplyInPlace(absl::MakeSpan(sums)); !applied.ok()) return applied;
  }
  const std::vector<std::byte> zeros(sums.size());
  return DeltaEncoder().Encode(zeros, sums, element_size, limits);
}

}  // namespace refit
