// Native tensors' bytes, read ahead of the wire.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "client/cli/commands/bounded_queue.h"
#include "client/cli/run/stopwatch.h"
#include "client/native/shard_source.h"
#include "common/tensor/buffer_pool.h"
#include "refit/buffer.h"

namespace refit::cli {

// A run of one shard's bytes, and what keeps them alive.
struct Piece {
  size_t shard = 0;
  absl::Span<const std::byte> bytes;
  std::shared_ptr<const void> owner;
};

// Reads the shards of a source that are needed, piece by piece, on a thread of its own, a little ahead of whoever takes
// them.
class PieceReader {
 public:
  PieceReader(std::shared_ptr<const ShardSource> source, std::vector<bool> unneeded);
  ~PieceReader();
  PieceReader(const PieceReader&) = delete;
  PieceReader& operator=(const PieceReader&) = delete;

  // nullopt at the end: then `Finish` says whether it was a good one.
  std::optional<Piece> Next() { return queue_.Pop(); }

  // After the last piece.
  absl::Status Finish();
  // Spent reading; after Finish.
  double seconds() const { return watch_.seconds(); }

 private:
  // Native bytes are read, and handed to the publisher, in pieces of this size: a multiple of every element size.
  static constexpr uint64_t kPieceBytes = 2 << 20;
  // Pieces that may be made ahead of the wire, and the memory for them that is kept warm.
  static constexpr size_t kPiecesAhead = 2;
  static constexpr uint64_t kPoolBytes = 8 * kPieceBytes;

  absl::Status ReadAll();
  absl::StatusOr<Piece> Read(size_t shard, uint64_t offset, uint64_t size);

  std::shared_ptr<const ShardSource> source_;
  const std::vector<bool> unneeded_;
  BufferPool pool_{kPoolBytes};
  BoundedQueue<Piece> queue_{kPiecesAhead};
  Stopwatch watch_;
  absl::Status status_;
  std::thread thread_;
};

}  // namespace refit::cli
