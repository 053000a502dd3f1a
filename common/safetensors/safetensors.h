// Reads and writes safetensors files and sharded checkpoints.
//
// Format: https://huggingface.co/docs/safetensors - 8 bytes little-endian header length, JSON header, tensor data.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "refit/box.h"
#include "refit/tensor_spec.h"

namespace refit {

// Whether a tensor name matches. An empty filter matches none.
using NameFilter = std::function<bool(absl::string_view)>;

// A safetensors file mapped into memory, with a completely checked header. Immutable, thread-safe. The file must not
// shrink while it is mapped: reading the missing part would raise SIGBUS. Writers that replace a file by renaming over
// it, as SafetensorsWriter does, are safe.
class SafetensorsFile {
 public:
  // Largest header that is accepted.
  static constexpr uint64_t kMaxHeaderBytes = 100 << 20;

  // NOT_FOUND or PERMISSION_DENIED from the file system. INVALID_ARGUMENT, naming file, tensor and what was expected,
  // if the file is truncated, or if its header is too long, is not a JSON object, or has a repeated name, an unknown
  // dtype, a bad shape, or offsets that are not numbers, run backwards, overlap, leave holes, do not match dtype and
  // shape, or do not end with the file. An error in an `unwanted` tensor does not count if its offsets are valid: the
  // tensor is omitted.
  static absl::StatusOr<std::shared_ptr<const SafetensorsFile>> Open(const std::string& path,
                                                                     const NameFilter& unwanted = nullptr);

  // In the order of their data. Empty tensors are among them in header order.
  const std::vector<TensorSpec>& tensors() const { return tensors_; }
  // Indices of tensors(), in the order in which the header names them. SafetensorsWriter names them as they were given.
  const std::vector<size_t>& header_order() const { return header_order_; }
  // The bytes of tensors()[index], mapped read-only, with any alignment. Valid while the file object lives.
  absl::Span<const std::byte> data(size_t index) const { return data_[index]; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  // Names of unwanted tensors that were omitted because this class cannot represent them.
  const std::vector<std::string>& left_out() const { return left_out_; }
  const std::string& path() const { return path_; }
  ~SafetensorsFile();

 private:
  class Mapping;
  SafetensorsFile(std::string path, std::unique_ptr<Mapping> mapping);
  absl::Status ParseHeader(const NameFilter& unwanted);
  std::string path_;
  std::unique_ptr<Mapping> mapping_;
  std::vector<TensorSpec> tensors_;
  std::vector<absl::Span<const std::byte>> data_;
  std::vector<size_t> header_order_;
  std::map<std::string, std::string> metadata_;
  std::vector<std::string> left_out_;
};

struct CheckpointOptions {
  // Tensors whose errors do not count. If they can be read, they are included all the same.
  NameFilter excluded;
  // If not 0: a folder must hold the shards of this many ranks, and other files in it are ignored. If 0 and the folder
  // holds shards, there must be several ranks'.
  uint64_t ranks = 0;
};

// A set of whole tensors, read from one of these: a file; a folder with model.safetensors.index.json; without an index,
// a folder with exactly one *.safetensors file; or all ranks' shards, as torch.distributed.checkpoint's
// HuggingFaceStorageWriter and NeMo Automodel save them (shard-00001-model-00001-of-00001.safetensors, ...). Shards are
// assembled while reading. Immutable, thread-safe.
class Checkpoint {
 public:
  // Errors as SafetensorsFile::Open. INVALID_ARGUMENT also for an index that is not JSON, names files outside of its
  // folder, or names tensors that its files do not hold; for a single rank's file; and, naming the tensor, for shards
  // that overlap, leave holes, or differ in dtype. Tensors that an index does not name are omitted.
  static absl::StatusOr<std::shared_ptr<const Checkpoint>> Open(const std::string& path,
                                                                const CheckpointOptions& options = {});

  // File by file in the order of file names, and in file order within each. A sharded tensor is at the place of its
  // first shard.
  const std::vector<TensorSpec>& tensors() const { return tensors_; }

  // Whether no tensor is sharded.
  bool is_mapped() const { return is_mapped_; }
  // The bytes of tensors()[index]. Requires is_mapped().
  absl::Span<const std::byte> data(size_t index) const;
  // Reads bytes [offset, offset + size) of tensors()[index]; they must be whole elements. Returns a view of the file
  // or, unless is_mapped(), of `scratch`, which must have room for `size` bytes. Returns an empty view if a file was
  // truncated meanwhile.
  absl::Span<const std::byte> Read(size_t index, uint64_t offset, uint64_t size, absl::Span<std::byte> scratch) const;

  // The rank, from 1, that saved the file of this name, if the name is that of a rank's shards. nullopt for other names
  // and for folders.
  static std::optional<uint64_t> RankOfFile(const std::string& path);
  // For a folder of shards: what that rank saved, one part for each of tensors(), which may be empty. Every rank has a
  // 0-D tensor.
  std::vector<TensorPart> PartsOfRank(uint64_t rank) const;

  // In the order of their names.
  const std::vector<std::shared_ptr<const SafetensorsFile>>& files() const { return files_; }
  // A line about anything unusual in the files. Mostly empty.
  const std::string& note() const { return note_; }

 private:
  // A part of a tensor, and its place in the files.
  struct Piece {
    size_t file;
    size_t index;
    Box box;
  };
  class Opener;
  class ShardsOpener;

  Checkpoint() = default;
  std::vector<std::shared_ptr<const SafetensorsFile>> files_;
  std::vector<TensorSpec> tensors_;
  std::vector<std::vector<Piece>> pieces_;  // for each tensor
  std::vector<uint64_t> ranks_;             // the ranks that wrote the files, if they hold shards
  bool is_mapped_ = true;
  std::string note_;
};

// Writes a file whose tensors are all known beforehand. Data may come in any order and in pieces. The file gets its
// name only in Commit; without Commit nothing is left. Links are followed. A character device or a pipe is written in
// order, and never replaced. Not thread-safe, but concurrent WriteAt on different ranges is allowed.
class SafetensorsWriter {
 public:
  // The header names tensors in the given order. With kAsGiven their data is in that order too. With kAligned it is
  // ordered by falling element sizes if otherwise some tensor would not begin at a multiple of its element size.
  enum class Layout { kAligned, kAsGiven };

  // `permissions` as for open(2), reduced by the process's umask; those of a replaced file are kept. INVALID_ARGUMENT
  // for tensors or metadata that no reader would accept, and for a path that cannot be a file, such as a folder;
  // FAILED_PRECONDITION for a pipe without a reader, and for a file system that cannot rename files.
  static absl::StatusOr<std::unique_ptr<SafetensorsWriter>> Create(
      const std::string& path, std::vector<TensorSpec> tensors, const std::map<std::string, std::string>& metadata = {},
      unsigned permissions = 0666, Layout layout = Layout::kAligned);
  // Whether this is a name of a file that an interrupted writer left.
  static bool IsTemporary(absl::string_view file_name);
  ~SafetensorsWriter();

  // Writes bytes of tensors[index] from `offset` on. OUT_OF_RANGE beyond its end; RESOURCE_EXHAUSTED on a full disk.
  absl::Status WriteAt(size_t index, uint64_t offset, absl::Span<const std::byte> bytes);

  // Flushes the file to disk and renames it to `path`. Returns OK if and only if the file is there.
  // FAILED_PRECONDITION, naming the tensor, if it has not received all its bytes, and for a file that is a mount point.
  absl::Status Commit();
  // After Commit: what the file system could not do, such as flushing. Empty if nothing.
  const std::string& warning() const;

 private:
  struct State;
  explicit SafetensorsWriter(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace refit
