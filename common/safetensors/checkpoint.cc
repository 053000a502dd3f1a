#include <algorithm>
#include <cstring>
#include <filesystem>
#include <new>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/safetensors/checkpoint_opener.h"
#include "common/safetensors/dcp_shards.h"
#include "common/safetensors/safetensors.h"
#include "refit/memory_probe.h"

namespace refit {
namespace {

// A run of elements of a box that is contiguous in the box and in the tensor.
struct Run {
  int64_t place;  // index in the box of its first element
  int64_t count;
};

// The run that begins at element `first` of the tensor; nullopt if the box does not contain that element.
std::optional<Run> RunFrom(absl::Span<const int64_t> shape, const Box& box, int64_t first) {
  Run run{0, 1};
  int64_t stride = 1;  // elements of the box from one index of dimension d to the next
  int64_t inner = 0;   // elements of the run's block before the first
  bool is_contiguous = true;
  for (size_t d = shape.size(); d-- > 0;) {
    const int64_t index = first % shape[d] - box.offsets[d];
    first /= shape[d];
    if (index < 0 || index >= box.sizes[d]) return std::nullopt;
    run.place += index * stride;
    if (is_contiguous) {
      inner += index * stride;
      run.count = box.sizes[d] * stride - inner;
      is_contiguous = box.sizes[d] == shape[d];
    }
    stride *= box.sizes[d];
  }
  return run;
}

}  // namespace

absl::StatusOr<std::shared_ptr<const Checkpoint>> Checkpoint::Open(const std::string& path,
                                                                   const CheckpointOptions& options) try {
  std::shared_ptr<Checkpoint> checkpoint(new Checkpoint());
  if (absl::Status status = Opener(*checkpoint, options).Open(path); !status.ok()) return status;
  return checkpoint;
} catch (const std::bad_alloc&) {
  return absl::ResourceExhaustedError(absl::StrCat(Printable(path), ": no memory to read it"));
}

absl::Span<const std::byte> Checkpoint::data(size_t index) const {
  const Piece& only = pieces_[index].front();
  return files_[only.file]->data(only.index);
}

absl::Span<const std::byte> Checkpoint::Read(size_t index, uint64_t offset, uint64_t size,
                                             absl::Span<std::byte> scratch) const {
  if (is_mapped_) return data(index).subspan(offset, size);
  const TensorSpec& whole = tensors_[index];
  const std::vector<Piece>& pieces = pieces_[index];
  const uint64_t element = ElementSize(whole.dtype);
  MemoryProbe probe;
  size_t at = 0;
  for (uint64_t done = 0; done < size;) {
    std::optional<Run> run;
    while (!(run = RunFrom(whole.shape, pieces[at].box, static_cast<int64_t>((offset + done) / element)))) {
      at = (at + 1) % pieces.size();
    }
    const absl::Span<const std::byte> shard = files_[pieces[at].file]->data(pieces[at].index);
    const uint64_t bytes = std::min(size - done, static_cast<uint64_t>(run->count) * element);
    const absl::Span<const std::byte> next = shard.subspan(static_cast<uint64_t>(run->place) * element, bytes);
    if (!probe.CheckReadable(next).ok()) return {};
    std::memcpy(scratch.data() + done, next.data(), bytes);
    done += bytes;
  }
  return scratch.first(size);
}

std::optional<uint64_t> Checkpoint::RankOfFile(const std::string& path) {
  std::error_code error;
  return std::filesystem::is_directory(path, error) ? std::nullopt : DcpRankOf(FileNameOf(path));
}

std::vector<TensorPart> Checkpoint::PartsOfRank(uint64_t rank) const {
  std::vector<TensorPart> parts;
  for (size_t i = 0; i < tensors_.size(); ++i) {
    const Shape nothing(tensors_[i].shape.size(), 0);
    Box box{nothing, nothing};
    for (const Piece& piece : pieces_[i]) {
      if (ranks_[piece.file] == rank) box = piece.box;
    }
    parts.push_back({tensors_[i], std::move(box)});
  }
  return parts;
}

}  // namespace refit
