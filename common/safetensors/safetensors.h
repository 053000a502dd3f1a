// Reading and writing safetensors files, and sharded checkpoints of them.
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

// Whether tensors of a name are meant. An empty one means none.
using NameFilter = std::function<bool(absl::string_view)>;

// A safetensors file mapped into memory, its header checked whole. Immutable, thread-safe.
// The file must not shrink while it is mapped: reading what is gone would raise SIGBUS. Writers that replace a file by
// renaming over it, as SafetensorsWriter does, are no danger.
class SafetensorsFile {
 public:
  // Largest header that is read.
  static constexpr uint64_t kMaxHeaderBytes = 100 << 20;

  // NOT_FOUND / PERMISSION_DENIED from the file system. INVALID_ARGUMENT, naming file, tensor and what was expected,
  // for a file that is truncated, whose header is too long, no JSON object, has a name twice, an unknown dtype, a bad
  // shape, offsets that are no numbers, run backwards, overlap, leave holes, do not fit dtype and shape, or do not end
  // with the file. What is wrong with a tensor that is `unwanted` fails nothing, as long as its offsets say where its
  // data is: it is left out.
  static absl::StatusOr<std::shared_ptr<const SafetensorsFile>> Open(const std::string& path,
                                                                     const NameFilter& unwanted = nullptr);

  // In order of their data; empty tensors in header order among them.
  const std::vector<TensorSpec>& tensors() const { return tensors_; }
  // The bytes of tensors()[index], mapped read-only; may have any alignment. Valid while the file object lives.
  absl::Span<const std::byte> data(size_t index) const { return data_[index]; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  // Names of the unwanted tensors that are left out, because this cannot represent them.
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
  std::map<std::string, std::string> metadata_;
  std::vector<std::string> left_out_;
};

struct CheckpointOptions {
  // What is wrong with tensors of these names fails nothing. Those that can be read are there all the same.
  NameFilter excluded;
  // If not 0: a folder must hold the shards of so many ranks, and what else is there does not count. Otherwise, if it
  // holds shards, those of several ranks.
  uint64_t ranks = 0;
};

// Whole tensors: one file, or a folder with model.safetensors.index.json, or, without an index, exactly one
// *.safetensors file, or all ranks' shards as torch.distributed.checkpoint's HuggingFaceStorageWriter and NeMo
// Automodel save them (shard-00001-model-00001-of-00001.safetensors, ...), which are put together as they are read.
// Immutable, thread-safe.
class Checkpoint {
 public:
  // Errors as SafetensorsFile::Open; INVALID_ARGUMENT also for an index that is no JSON, names files outside of its
  // folder, or tensors that its files do not hold; for one rank's file; and, naming the tensor, for shards that
  // overlap, leave holes, or differ in dtype. Tensors that an index does not name are left out.
  static absl::StatusOr<std::shared_ptr<const Checkpoint>> Open(const std::string& path,
                                                                const CheckpointOptions& options = {});

  // File by file in order of file names, in file order within each; a tensor in shards where its first one is.
  const std::vector<TensorSpec>& tensors() const { return tensors_; }

  // Whether no tensor is in shards.
  bool is_mapped() const { return is_mapped_; }
  // The bytes of tensors()[index]; is_mapped() must hold.
  absl::Span<const std::byte> data(size_t index) const;
  // Bytes [offset, offset + size) of tensors()[index], whole elements: a view of its file, or, unless is_mapped(), made
  // into `scratch`, which has room for `size` bytes: then an empty view if a file was cut meanwhile.
  absl::Span<const std::byte> Read(size_t index, uint64_t offset, uint64_t size, absl::Span<std::byte> scratch) const;

  // Which rank, from 1, saved the file of this name, if it holds a rank's shards; nullopt for other names and folders.
  static std::optional<uint64_t> RankOfFile(const std::string& path);
  // Of a folder of shards: what that rank saved, one part of each of tensors(), which may be empty. A 0-D tensor is
  // everybody's.
  std::vector<TensorPart> PartsOfRank(uint64_t rank) const;

  // In order of their names.
  const std::vector<std::shared_ptr<const SafetensorsFile>>& files() const { return files_; }
  // A line that tells what is not plain about what was read; mostly empty.
  const std::string& note() const { return note_; }

 private:
  // A part of a tensor, and where it is.
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
  std::vector<std::vector<Piece>> pieces_;  // of each tensor
  std::vector<uint64_t> ranks_;             // that wrote the files, if they hold shards
  bool is_mapped_ = true;
  std::string note_;
};

// Writes a file whose tensors are all known beforehand; data may come in any order and in pieces. The file appears
// under its name only by Commit, and what is written before leaves nothing unless it comes to that. Links are followed;
// a character device or a pipe is written through, in order, and never replaced. Not thread-safe, but WriteAt on
// different ranges may be concurrent.
class SafetensorsWriter {
 public:
  // The header names tensors in the order given. Their data is in that order too, or, if kAligned and some tensor would
  // not begin at a multiple of its element size, ordered by falling element sizes, so that every one does.
  enum class Layout { kAligned, kAsGiven };

  // `permissions` as for open(2): less what the process's umask takes away; those of a file that is replaced stay.
  // INVALID_ARGUMENT for tensors or metadata that no reader would take, and for a path to what can be no file, such as
  // a folder; FAILED_PRECONDITION for a pipe that nobody reads, and a file system that cannot rename files.
  static absl::StatusOr<std::unique_ptr<SafetensorsWriter>> Create(
      const std::string& path, std::vector<TensorSpec> tensors, const std::map<std::string, std::string>& metadata = {},
      unsigned permissions = 0666, Layout layout = Layout::kAligned);
  // Whether a file of this name is one that a writer has left which came to no end.
  static bool IsTemporary(absl::string_view file_name);
  ~SafetensorsWriter();

  // Bytes of tensors[index] from `offset` on. OUT_OF_RANGE beyond its end; RESOURCE_EXHAUSTED on a full disk.
  absl::Status WriteAt(size_t index, uint64_t offset, absl::Span<const std::byte> bytes);

  // Flushes to disk and renames over `path`: OK if and only if the file is there. FAILED_PRECONDITION, naming the
  // tensor, if fewer bytes came than it has, and for a file that is a mount of its own.
  absl::Status Commit();
  // After Commit: what the file system could not do, such as flushing; empty if nothing.
  const std::string& warning() const;

 private:
  struct State;
  explicit SafetensorsWriter(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace refit
