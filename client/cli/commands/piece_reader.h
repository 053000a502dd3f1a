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

// A run of bytes of one shard, and the owner of their memory.
struct Piece {
  size_t shard = 0;
  absl::Span<const std::byte> bytes;
  std::shared_ptr<const void> owner;
};

// Reads the needed shards of a source piece by piece. It has a thread of its own and reads a few pieces ahead.
class PieceReader {
 public:
  PieceReader(std::shared_ptr<const ShardSource> source, std::vector<bool> unneeded);
  ~PieceReader();
  PieceReader(const PieceReader&) = delete;
  PieceReader& operator=(const PieceReader&) = delete;

  // nullopt at the end. Then `Finish` says whether all pieces were read.
  std::optional<Piece> Next() { return queue_.Pop(); }

  // Call it after the last piece.
  absl::Status Finish();
  // Spent reading; after Finish.
  double seconds() const { return watch_.seconds(); }

 private:
  // Native bytes are read and sent in pieces of this size: whole chunks of the usual size, also if they are cast from
  // F64 to a quarter.
  static constexpr uint64_t kPieceBytes = 8 << 20;
  // How many pieces may be read ahead, and how many idle buffers the pool keeps.
  static constexpr size_t kPiecesAhead = 2;
  static constexpr uint64_t kPoolBytes = 4 * kPieceBytes;

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
