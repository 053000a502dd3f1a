#include "client/native/shard_source.h"

#include <cstring>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/safetensors/safetensors.h"
#include "common/safetensors/shard_metadata.h"
#include "refit/memory_probe.h"

namespace refit {

void ShardSource::Add(TensorPart shard, size_t index, const Shape& shape, const Box& box) {
  shards_.push_back(std::move(shard));
  places_.push_back({index, BoxRuns(shape, box)});
}

std::shared_ptr<const ShardSource> ShardSource::Whole(std::shared_ptr<const NativeSource> source) {
  std::shared_ptr<ShardSource> whole(new ShardSource(std::move(source)));
  const std::vector<TensorSpec>& tensors = whole->source_->tensors();
  for (size_t i = 0; i < tensors.size(); ++i) {
    whole->Add(TensorPart::Whole(tensors[i]), i, tensors[i].shape, WholeBox(tensors[i].shape));
  }
  return whole;
}

absl::StatusOr<std::shared_ptr<const ShardSource>> ShardSource::Cut(std::shared_ptr<const NativeSource> source,
                                                                    std::vector<TensorPart> shards) {
  std::shared_ptr<ShardSource> cut(new ShardSource(std::move(source)));
  const std::vector<TensorSpec>& tensors = cut->source_->tensors();
  if (shards.size() != tensors.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat(shards.size(), " shards of ", tensors.size(), " tensors; expected one of each"));
  }
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (shards[i].tensor != tensors[i]) {
      return absl::InvalidArgumentError(
          absl::StrCat("a shard of ", shards[i].tensor.ToString(), ", expected one of ", tensors[i].ToString()));
    }
    if (absl::Status status = Validate(shards[i].box, tensors[i].shape); !status.ok()) {
      return absl::InvalidArgumentError(absl::StrCat("tensor ", Printable(tensors[i].name), ": ", status.message()));
    }
    const Box box = shards[i].box;
    cut->Add(std::move(shards[i]), i, tensors[i].shape, box);
  }
  return cut;
}

namespace {

absl::StatusOr<std::shared_ptr<const ShardSource>> OpenRankFile(const std::filesystem::path& path, uint64_t rank,
                                                                const CheckpointOptions& options) {
  if (options.ranks == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(Printable(path.string()), " holds one rank's shards: of how many ranks must be known"));
  }
  const std::filesystem::path folder = path.has_parent_path() ? path.parent_path() : ".";
  absl::StatusOr<std::shared_ptr<const Checkpoint>> checkpoint = Checkpoint::Open(folder, options);
  if (!checkpoint.ok()) return checkpoint.status();
  std::vector<TensorPart> parts = (*checkpoint)->PartsOfRank(rank);
  return ShardSource::Cut(MakeCheckpointSource(*std::move(checkpoint)), std::move(parts));
}

}  // namespace

absl::StatusOr<std::shared_ptr<const ShardSource>> ShardSource::OpenFiles(const std::string& path,
                                                                          const CheckpointOptions& options) {
  if (const std::optional<uint64_t> rank = Checkpoint::RankOfFile(path)) return OpenRankFile(path, *rank, options);
  absl::StatusOr<std::shared_ptr<const Checkpoint>> checkpoint = Checkpoint::Open(path, options);
  if (!checkpoint.ok()) return checkpoint.status();
  absl::StatusOr<std::optional<std::vector<FileShard>>> shards = ReadShards(**checkpoint);
  if (!shards.ok()) return shards.status();
  if (!shards->has_value()) return nullptr;
  std::shared_ptr<ShardSource> source(new ShardSource(MakeCheckpointSource(*std::move(checkpoint))));
  for (FileShard& shard : **shards) {
    // The shard is the whole tensor of the file. A shard without a tensor is empty, and is never read.
    const Shape shape = shard.part.box.sizes;
    source->Add(std::move(shard.part), shard.index.value_or(0), shape, WholeBox(shape));
  }
  return source;
}

absl::Span<const std::byte> ShardSource::Read(size_t index, uint64_t offset, uint64_t size,
                                              absl::Span<std::byte> scratch) const {
  if (size == 0) return {};
  const Place& at = places_[index];
  const uint64_t element = ElementSize(shards_[index].tensor.dtype);
  if (at.runs.is_contiguous()) {
    return source_->Read(at.index, static_cast<uint64_t>(at.runs.offset()) * element + offset, size, scratch);
  }
  std::byte* out = scratch.data();
  MemoryProbe probe;
  bool is_whole = true;
  at.runs.ForEach(static_cast<int64_t>(offset / element), static_cast<int64_t>(size / element),
                  [&](int64_t place, int64_t count) {
                    const uint64_t bytes = static_cast<uint64_t>(count) * element;
                    const absl::Span<const std::byte> run =
                        source_->Read(at.index, static_cast<uint64_t>(place) * element, bytes, {out, bytes});
                    is_whole = is_whole && run.size() == bytes && (run.data() == out || probe.CheckReadable(run).ok());
                    if (is_whole && run.data() != out) std::memcpy(out, run.data(), bytes);
                    out += bytes;
                  });
  return is_whole ? scratch.first(size) : absl::Span<const std::byte>();
}

}  // namespace refit
