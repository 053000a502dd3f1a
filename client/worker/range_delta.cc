#include "client/worker/range_delta.h"

#include <cstring>

#include "absl/status/statusor.h"
#include "common/tensor/kernels.h"

namespace refit {
namespace {

constexpr size_t kPieceBytes = 32 << 10;  // stays in the fastest cache

}  // namespace

absl::Status RangeDelta::Read(absl::Span<const std::byte> payload, uint64_t range_bytes, size_t element_size) {
  is_empty_ = payload.empty();
  return is_empty_ ? absl::OkStatus() : decoder_.Read(payload, range_bytes, element_size);
}

// What the piece of the range at `at` becomes.
absl::StatusOr<absl::Span<const std::byte>> RangeDelta::Piece(Direction direction, absl::Span<const std::byte> range,
                                                              size_t at) {
  const absl::Span<const std::byte> piece = range.subspan(at, kPieceBytes);
  if (is_empty_) return piece;
  piece_.resize(kPieceBytes);
  const absl::Span<std::byte> changed = absl::MakeSpan(piece_).first(piece.size());
  std::memcpy(changed.data(), piece.data(), piece.size());
  if (absl::Status status = decoder_.ChangePiece(direction, at, changed); !status.ok()) return status;
  return changed;
}

absl::Status RangeDelta::Digest(Direction direction, absl::Span<const std::byte> range, TensorDigester& digester) {
  for (size_t at = 0; at < range.size(); at += kPieceBytes) {
    const absl::StatusOr<absl::Span<const std::byte>> piece = Piece(direction, range, at);
    if (!piece.ok()) return piece.status();
    digester.Update(*piece);
  }
  return absl::OkStatus();
}

absl::Status RangeDelta::DigestAndWrite(absl::Span<const std::byte> base, absl::Span<std::byte> result, bool past_cache,
                                        TensorDigester& digester) {
  for (size_t at = 0; at < base.size(); at += kPieceBytes) {
    const absl::StatusOr<absl::Span<const std::byte>> piece = Piece(Direction::kForward, base, at);
    if (!piece.ok()) return piece.status();
    digester.Update(*piece);
    if (past_cache) {
      CopyPastCache(piece->data(), result.data() + at, piece->size());
    } else {
      std::memcpy(result.data() + at, piece->data(), piece->size());
    }
  }
  return absl::OkStatus();
}

absl::Status RangeDelta::Change(Direction direction, absl::Span<std::byte> range) const {
  if (is_empty_) return absl::OkStatus();
  return direction == Direction::kForward ? decoder_.ApplyInPlace(range) : decoder_.RevertInPlace(range);
}

}  // namespace refit
