#include "client/cli/commands/piece_reader.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/net/status.h"
#include "refit/memory_probe.h"

namespace refit::cli {

PieceReader::PieceReader(std::shared_ptr<const ShardSource> source, std::vector<bool> unneeded)
    : source_(std::move(source)), unneeded_(std::move(unneeded)), thread_([this] {
        status_ = ReadAll();
        queue_.Close();
      }) {}

PieceReader::~PieceReader() {
  queue_.Close();
  if (thread_.joinable()) thread_.join();
}

absl::Status PieceReader::Finish() {
  thread_.join();
  return status_;
}

absl::Status PieceReader::ReadAll() {
  for (size_t i = 0; i < source_->shards().size(); ++i) {
    if (unneeded_[i]) continue;
    const uint64_t size = source_->shards()[i].ByteSize();
    for (uint64_t offset = 0; offset < size; offset += kPieceBytes) {
      absl::StatusOr<Piece> piece = watch_.Time([&] { return Read(i, offset, std::min(kPieceBytes, size - offset)); });
      if (!piece.ok()) return piece.status();
      if (!queue_.Push(*std::move(piece))) return absl::OkStatus();
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Piece> PieceReader::Read(size_t shard, uint64_t offset, uint64_t size) {
  if (source_->is_resident(shard)) {
    Piece piece{shard, source_->Read(shard, offset, size, {}), source_};
    // The piece may be a view of a mapped file. If the file was truncated, reading it would raise SIGBUS and end the
    // program.
    absl::Status status = MemoryProbe().CheckReadable(piece.bytes);
    if (!status.ok()) return Annotate(status, absl::StrCat("tensor ", source_->shards()[shard].ToString()));
    return piece;
  }
  // Buffers are always the same size, so that the pool can reuse one.
  absl::StatusOr<std::shared_ptr<Buffer>> buffer = pool_.Get(kPieceBytes);
  if (!buffer.ok()) return buffer.status();
  Piece piece{shard, source_->Read(shard, offset, size, (*buffer)->span().first(size)), *buffer};
  if (piece.bytes.size() == size) return piece;
  return absl::InvalidArgumentError(
      absl::StrCat("tensor ", source_->shards()[shard].ToString(), ": its file was truncated while it was read"));
}

}  // namespace refit::cli
