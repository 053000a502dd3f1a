#include "common/delta/delta_composer.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace refit {

absl::StatusOr<EncodedDelta> DeltaComposer::Compose(absl::Span<const absl::Span<const std::byte>> payloads,
                                                    uint64_t range_bytes, size_t element_size,
                                                    const DeltaLimits& limits) {
  // Applied to zeros, the payloads leave the sums of their differences.
  absl::Span<std::byte> sums;
  for (size_t i = 0; i < payloads.size(); ++i) {
    const absl::Status read = decoder_.Read(payloads[i], range_bytes, element_size);
    if (!read.ok()) {
      return absl::Status(read.code(), absl::StrCat("delta ", i + 1, " of ", payloads.size(), ": ", read.message()));
    }
    if (i == 0) {
      zeros_.resize(std::max<size_t>(zeros_.size(), range_bytes));
      sums_.resize(zeros_.size());
      sums = absl::MakeSpan(sums_).first(range_bytes);
      std::fill(sums.begin(), sums.end(), std::byte{});
    }
    if (absl::Status applied = decoder_.ApplyInPlace(sums); !applied.ok()) return applied;
  }
  return encoder_.Encode(absl::MakeConstSpan(zeros_).first(sums.size()), sums, element_size, limits);
}

}  // namespace refit
