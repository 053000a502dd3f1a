#include "common/delta/delta_encoder.h"

#include <algorithm>
#include <bit>

#include "absl/strings/str_cat.h"
#include "common/delta/coded_changes.h"
#include "common/delta/delta_format.h"
#include "common/delta/prefix_code.h"

namespace refit {
namespace {

constexpr size_t kWriterSlack = 8;  // bytes that are written beyond a stream

void AppendVarint(uint64_t value, std::vector<std::byte>& out) {
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<std::byte>(value | 0x80));
  out.push_back(static_cast<std::byte>(value));
}

// A few elements at even distances say whether all need to be looked at. They may err: by a quarter more than the limit
// is six times what chance makes of it. Where changes lie in lumps the answer is a raw range in place of a delta.
bool TooManyInSample(absl::Span<const std::byte> base, absl::Span<const std::byte> now, size_t element_size,
                     double limit) {
  if (now.size() / element_size < 8 * kSampledElements || limit >= 0.8) return false;
  return static_cast<double>(SampleChanges(base, now, element_size)) > 1.25 * limit * kSampledElements;
}

}  // namespace

absl::StatusOr<EncodedDelta> DeltaEncoder::Encode(absl::Span<const std::byte> base, absl::Span<const std::byte> now,
                                                  size_t element_size, const DeltaLimits& limits) {
  if (!IsElementSize(element_size) || base.size() != now.size() || now.size() % element_size != 0) {
    return absl::InvalidArgumentError(absl::StrCat("no delta between ", base.size(), " and ", now.size(),
                                                   " bytes of elements of ", element_size,
                                                   ": wants equal sizes, and whole elements of 1, 2, 4 or 8 bytes"));
  }
  const size_t elements = now.size() / element_size;
  const double limit = std::clamp(limits.changed, 0.0, 1.0);
  const EncodedDelta raw{EncodedDelta::Kind::kRaw};
  if (elements > kMaxDeltaElements || TooManyInSample(base, now, element_size, limit)) return raw;
  const auto most = static_cast<size_t>(limit * static_cast<double>(elements));
  if (!FindChanges(base, now, element_size, most, changes_)) return raw;
  if (changes_.count == 0) return EncodedDelta{};
  return EncodeChanges(element_size, now.size());
}

EncodedDelta DeltaEncoder::EncodeChanges(size_t element_size, size_t dense_bytes) const {
  const SymbolCounts gaps = CountGaps(changes_);
  const SymbolCounts differences = CountDifferences(changes_, element_size);
  const CodeLengths gap_lengths = LengthsFor(gaps);
  const CodeLengths difference_lengths = LengthsFor(differences);
  const size_t gap_bytes = (StreamBits(gaps, gap_lengths) + 7) / 8;
  const size_t difference_bytes = (StreamBits(differences, difference_lengths) + 7) / 8;

  EncodedDelta delta{EncodedDelta::Kind::kDelta, {}, changes_.count};
  std::vector<std::byte>& payload = delta.payload;
  payload.reserve(kMaxDeltaHeader + gap_bytes + difference_bytes + kWriterSlack);
  payload.push_back(static_cast<std::byte>(std::countr_zero(element_size)));
  AppendVarint(changes_.count, payload);
  AppendLengths(gap_lengths, payload);
  AppendLengths(difference_lengths, payload);
  AppendVarint(gap_bytes, payload);
  const size_t header_bytes = payload.size();
  const size_t bytes = header_bytes + gap_bytes + difference_bytes;
  if (bytes >= dense_bytes) return EncodedDelta{EncodedDelta::Kind::kRaw};

  payload.resize(bytes + kWriterSlack);
  std::byte* const streams = payload.data() + header_bytes;
  WriteGaps(changes_, CodebookOf(gap_lengths), streams);
  WriteDifferences(changes_, element_size, CodebookOf(difference_lengths), streams + gap_bytes);
  payload.resize(bytes);
  return delta;
}

}  // namespace refit
