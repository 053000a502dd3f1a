// The shards that one rank of a sharded push sends. They are cut from whole tensors while reading, or are shards in the
// files already.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "client/native/native_source.h"
#include "refit/box.h"

namespace refit {

// Shards of the tensors of a NativeSource. Whole tensors are never assembled: reading gathers a shard run by run.
// Immutable, thread-safe.
class ShardSource {
 public:
  // Every tensor as one shard.
  static std::shared_ptr<const ShardSource> Whole(std::shared_ptr<const NativeSource> source);

  // One part of each tensor, in the source's order. INVALID_ARGUMENT, naming the first part that is not a valid part of
  // its tensor.
  static absl::StatusOr<std::shared_ptr<const ShardSource>> Cut(std::shared_ptr<const NativeSource> source,
                                                                std::vector<TensorPart> shards);

  // The shards that a file or folder holds according to its metadata. Null if the metadata does not mention shards. For
  // a rank's file that torch.distributed.checkpoint saved, these are the shards of that rank. The other ranks' files,
  // in the same folder, tell the sizes of the tensors, and `options` must say how many ranks there are. Errors as
  // Checkpoint::Open, and as ReadShards of common/safetensors/shard_metadata.h.
  static absl::StatusOr<std::shared_ptr<const ShardSource>> OpenFiles(const std::string& path,
                                                                      const CheckpointOptions& options = {});

  const std::vector<TensorPart>& shards() const { return shards_; }
  // As NativeSource::note.
  std::string note() const { return source_->note(); }

  // Reads bytes [offset, offset + size) of shards()[index], which is row-major in its box. The range must consist of
  // whole elements. The result is as for NativeSource::Read.
  absl::Span<const std::byte> Read(size_t index, uint64_t offset, uint64_t size, absl::Span<std::byte> scratch) const;

  // Whether Read of this shard returns views of memory that lives as long as the source.
  bool is_resident(size_t index) const { return source_->is_resident() && places_[index].runs.is_contiguous(); }

 private:
  // Where a shard lies in the source's tensors.
  struct Place {
    size_t index;
    BoxRuns runs;
  };
  explicit ShardSource(std::shared_ptr<const NativeSource> source) : source_(std::move(source)) {}
  // Adds a shard: the box of the source's tensor `index`.
  void Add(TensorPart shard, size_t index, const Shape& shape, const Box& box);

  std::shared_ptr<const NativeSource> source_;
  std::vector<TensorPart> shards_;
  std::vector<Place> places_;
};

}  // namespace refit
