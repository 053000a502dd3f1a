// Opens a checkpoint from the files at a path. Private to common/safetensors.
#pragma once

#include <filesystem>
#include <set>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "common/safetensors/safetensors.h"

namespace refit {

// Fills a checkpoint that is not in use yet: from one file, from the files of an index, or from all ranks' shards.
class Checkpoint::Opener {
 public:
  Opener(Checkpoint& checkpoint, const CheckpointOptions& options) : checkpoint_(checkpoint), options_(options) {}

  absl::Status Open(const std::string& path);

 private:
  absl::Status OpenFile(const std::string& path);
  absl::Status OpenIndexed(const std::filesystem::path& folder);
  // Adds the tensors of a file that the index names.
  absl::Status AddIndexed(const std::string& path, const std::set<std::string>& named);
  // Adds a tensor of the last file.
  void AddWhole(size_t index);

  Checkpoint& checkpoint_;
  const CheckpointOptions& options_;
  size_t unnamed_ = 0;  // number of tensors that the index does not name
};

inline bool Matches(const NameFilter& filter, absl::string_view name) { return filter && filter(name); }

// INVALID_ARGUMENT, naming the file.
absl::Status InFile(const SafetensorsFile& file, absl::string_view message);

// The file name in a path.
std::string FileNameOf(absl::string_view path);

}  // namespace refit
