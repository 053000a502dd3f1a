// What one rank of a sharded push sends: parts of tensors, cut on the fly or as files hold them.
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

// Shards of the tensors of a NativeSource. No tensor is ever put together: a shard is gathered run by run, as it is
// read. Immutable, thread-safe.
class ShardSource {
 public:
  // Every tensor whole.
  static std::shared_ptr<const ShardSource> Whole(std::shared_ptr<const NativeSource> source);

  // One part of each tensor, in the source's order. INVALID_ARGUMENT, naming the first that is not, unless these are
  // valid parts of its tensors.
  static absl::StatusOr<std::shared_ptr<const ShardSource>> Cut(std::shared_ptr<const NativeSource> source,
                                                                std::vector<TensorPart> shards);

  // The shards that a file or folder holds according to its metadata; null if that says nothing of shards. Of a rank's
  // file as torch.distributed.checkpoint saves it, those of that rank: the others' files, in the same folder, tell how
  // large the tensors are, and `options` must say how many ranks there are. Errors as Checkpoint::Open and ReadShards
  // of common/safetensors/shard_metadata.h.
  static absl::StatusOr<std::shared_ptr<const ShardSource>> OpenFiles(const std::string& path,
                                                                      const CheckpointOptions& options = {});

  const std::vector<TensorPart>& shards() const { return shards_; }
  // As NativeSource::note.
  std::string note() const { return source_->note(); }

  // Bytes [offset, offset + size) of shards()[index], which is row-major in its box; whole elements. Either a view of
  // memory that lives as long as the source, or made into `scratch`, which has room for `size` bytes, and then a view
  // of that: an empty one if a file that it is made of was cut meanwhile.
  absl::Span<const std::byte> Read(size_t index, uint64_t offset, uint64_t size, absl::Span<std::byte> scratch) const;

  // Whether Read of this shard gives views of memory that lives as long as the source.
  bool is_resident(size_t index) const { return source_->is_resident() && places_[index].runs.is_contiguous(); }

 private:
  // Where a shard lies in the source's tensors.
  struct Place {
    size_t index;
    BoxRuns runs;
  };
  explicit ShardSource(std::shared_ptr<const NativeSource> source) : source_(std::move(source)) {}
  // The box of tensor `index` of the source becomes the next shard.
  void Add(TensorPart shard, size_t index, const Shape& shape, const Box& box);

  std::shared_ptr<const NativeSource> source_;
  std::vector<TensorPart> shards_;
  std::vector<Place> places_;
};

}  // namespace refit
