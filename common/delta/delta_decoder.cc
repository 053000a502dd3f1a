#include "common/delta/delta_decoder.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <optional>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "common/delta/coded_changes.h"
#include "common/delta/delta_format.h"
#include "common/delta/prefix_code.h"

namespace refit {
namespace {

constexpr size_t kCopiedAtOnce = 32 << 10;  // bytes that stay in the fastest cache until they are changed

template <typename... Parts>
absl::Status Malformed(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat("malformed delta payload: ", parts...));
}

// In its shortest form; taken from the beginning of `bytes`.
std::optional<uint64_t> TakeVarint(absl::Span<const std::byte>& bytes) {
  uint64_t value = 0;
  for (size_t i = 0; i < std::min<size_t>(bytes.size(), 9); ++i) {
    const auto byte = std::to_integer<uint64_t>(bytes[i]);
    value |= (byte & 0x7f) << (7 * i);
    if (byte >= 0x80) continue;
    if (byte == 0 && i > 0) return std::nullopt;
    bytes.remove_prefix(i + 1);
    return value;
  }
  return std::nullopt;
}

// A stream ends with the byte that its last bit is in; what is left of that is zero.
absl::Status CheckEnd(absl::string_view what, absl::Span<const std::byte> stream, uint64_t bits) {
  if (stream.size() != (bits + 7) / 8) {
    return Malformed(what, " take ", (bits + 7) / 8, " bytes, ", stream.size(), " are there");
  }
  const int unused = static_cast<int>(8 * stream.size() - bits);
  if (unused != 0 && (std::to_integer<int>(stream.back()) & ((1 << unused) - 1)) != 0) {
    return Malformed(what, " are followed by bits that are not zero");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status DeltaDecoder::Read(absl::Span<const std::byte> payload, uint64_t range_bytes, size_t element_size) {
  changes_.count = 0;
  range_bytes_ = range_bytes;
  element_size_ = IsElementSize(element_size) ? element_size : 1;
  if (!IsElementSize(element_size) || range_bytes % element_size != 0 ||
      range_bytes / element_size > kMaxDeltaElements) {
    return absl::InvalidArgumentError(absl::StrCat("no delta of ", range_bytes, " bytes of elements of ", element_size,
                                                   ": wants whole elements of 1, 2, 4 or 8 bytes, at most ",
                                                   kMaxDeltaElements));
  }
  absl::Status status = ReadStreams(payload, range_bytes, element_size);
  if (!status.ok()) changes_.count = 0;
  return status;
}

absl::Status DeltaDecoder::ReadStreams(absl::Span<const std::byte> payload, uint64_t range_bytes, size_t element_size) {
  const uint64_t elements = range_bytes / element_size;
  if (payload.empty()) return Malformed("it is empty");
  if (std::to_integer<int>(payload[0]) != std::countr_zero(element_size)) {
    return Malformed("it begins with ", std::to_integer<int>(payload[0]), ", for elements of ", element_size,
                     " bytes it is ", std::countr_zero(element_size));
  }
  payload.remove_prefix(1);
  const std::optional<uint64_t> count = TakeVarint(payload);
  if (!count.has_value()) return Malformed("it has no number of changes");
  if (*count == 0 || *count > elements) return Malformed(*count, " changes of ", elements, " elements");
  const absl::StatusOr<CodeLengths> gaps = TakeLengths(payload, SymbolOf(elements - 1));
  if (!gaps.ok()) return gaps.status();
  const absl::StatusOr<CodeLengths> differences = TakeLengths(payload, SymbolOf(MaxFolded(element_size)));
  if (!differences.ok()) return differences.status();
  const std::optional<uint64_t> gap_bytes = TakeVarint(payload);
  if (!gap_bytes.has_value() || *gap_bytes > payload.size()) return Malformed("it ends within the gaps");
  const absl::Span<const std::byte> gap_stream = payload.first(*gap_bytes);
  const absl::Span<const std::byte> difference_stream = payload.subspan(*gap_bytes);
  // Before memory is taken for so many.
  if (*count * NumberBitsOf(*gaps).least > 8 * gap_stream.size() ||
      *count * NumberBitsOf(*differences).least > 8 * difference_stream.size()) {
    return Malformed("it is too short for ", *count, " changes");
  }

  DecodingTable gap_table;
  DecodingTable difference_table;
  FillDecodingTable(*gaps, gap_table);
  FillDecodingTable(*differences, difference_table);
  const ReadChanges read =
      refit::Read({gap_table, difference_table, gap_stream, difference_stream}, *count, element_size, changes_);
  if (absl::Status end = CheckEnd("gaps", gap_stream, read.gap_bits); !end.ok()) return end;
  if (absl::Status end = CheckEnd("differences", difference_stream, read.difference_bits); !end.ok()) return end;
  if (read.too_large) return Malformed("a difference is too large for elements of ", element_size, " bytes");
  if (read.elements > elements) return Malformed("a change of element ", read.elements - 1, " of ", elements);
  return absl::OkStatus();
}

absl::Status DeltaDecoder::CheckSize(size_t bytes) const {
  if (bytes == range_bytes_) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("a delta of a range of ", range_bytes_, " bytes cannot be applied to one of ", bytes));
}

absl::Status DeltaDecoder::Apply(absl::Span<const std::byte> base, absl::Span<std::byte> result) const {
  if (absl::Status size = CheckSize(base.size()); !size.ok()) return size;
  if (absl::Status size = CheckSize(result.size()); !size.ok()) return size;
  for (size_t at = 0; at < result.size(); at += kCopiedAtOnce) {
    const absl::Span<std::byte> piece = result.subspan(at, kCopiedAtOnce);
    std::memcpy(piece.data(), base.data() + at, piece.size());
    if (absl::Status changed = ChangePiece(Direction::kForward, at, piece); !changed.ok()) return changed;
  }
  return absl::OkStatus();
}

absl::Status DeltaDecoder::ApplyInPlace(absl::Span<std::byte> range) const {
  if (absl::Status size = CheckSize(range.size()); !size.ok()) return size;
  return ChangePiece(Direction::kForward, 0, range);
}

absl::Status DeltaDecoder::RevertInPlace(absl::Span<std::byte> range) const {
  if (absl::Status size = CheckSize(range.size()); !size.ok()) return size;
  return ChangePiece(Direction::kBack, 0, range);
}

absl::Status DeltaDecoder::ChangePiece(Direction direction, uint64_t at, absl::Span<std::byte> piece) const {
  if (at > range_bytes_ || piece.size() > range_bytes_ - at || (at | piece.size()) % element_size_ != 0) {
    return absl::InvalidArgumentError(absl::StrCat("a delta of a range of ", range_bytes_, " bytes has no piece of ",
                                                   piece.size(), " bytes at ", at));
  }
  const auto begin = changes_.positions.begin();
  const auto end = begin + static_cast<std::ptrdiff_t>(changes_.count);
  const uint64_t skipped = at / element_size_;
  const auto first = std::lower_bound(begin, end, skipped);
  AddChanges(changes_, direction, element_size_, static_cast<size_t>(first - begin), skipped, piece);
  return absl::OkStatus();
}

}  // namespace refit
