#include "common/safetensors/checkpoint_opener.h"

#include <algorithm>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "common/safetensors/checkpoint_index.h"
#include "common/safetensors/dcp_shards.h"
#include "common/safetensors/posix_file.h"
#include "common/safetensors/shards_opener.h"
#include "common/safetensors/strict_json.h"

namespace refit {
namespace {

// The *.safetensors files of a folder, by name.
absl::StatusOr<std::vector<std::string>> ListFiles(const std::string& folder) {
  std::vector<std::string> found;
  std::error_code error;
  for (std::filesystem::directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
    if (at->path().extension() == ".safetensors") found.push_back(at->path().string());
  }
  if (error) return FileError(error.value(), "list", folder);
  std::sort(found.begin(), found.end());
  return found;
}

}  // namespace

absl::Status InFile(const SafetensorsFile& file, absl::string_view message) {
  return absl::InvalidArgumentError(absl::StrCat(Printable(file.path()), ": ", message));
}

std::string FileNameOf(absl::string_view path) { return std::filesystem::path(std::string(path)).filename().string(); }

absl::Status Checkpoint::Opener::Open(const std::string& path) {
  std::error_code error;
  if (!std::filesystem::is_directory(path, error)) return OpenFile(path);
  const bool has_index = std::filesystem::exists(std::filesystem::path(path) / kIndexName, error) || error;
  if (has_index && options_.ranks == 0) return OpenIndexed(path);
  absl::StatusOr<std::vector<std::string>> paths = ListFiles(path);
  if (!paths.ok()) return paths.status();
  const auto others = std::stable_partition(
      paths->begin(), paths->end(), [](const std::string& file) { return DcpRankOf(FileNameOf(file)).has_value(); });
  if (options_.ranks > 0 && others == paths->begin()) {
    return absl::InvalidArgumentError(
        absl::StrCat(Printable(path), ": has no shards of torch.distributed.checkpoint (shard-00001-model-...)"));
  }
  if (others != paths->begin() && (others == paths->end() || options_.ranks > 0)) {
    paths->erase(others, paths->end());
    return ShardsOpener(checkpoint_, options_).Open(path, *paths);
  }
  if (paths->size() == 1) return OpenFile(paths->front());
  return absl::InvalidArgumentError(absl::StrCat(Printable(path), ": expected ", kIndexName,
                                                 " or exactly one *.safetensors file, got ", paths->size(),
                                                 " such files and no index"));
}

absl::Status Checkpoint::Opener::OpenFile(const std::string& path) {
  const auto file = SafetensorsFile::Open(path, options_.excluded);
  if (!file.ok()) return file.status();
  if (absl::Status status = ShardsOpener::Refuse(**file, false); !status.ok()) return status;
  checkpoint_.files_.push_back(*file);
  for (size_t i = 0; i < (*file)->tensors().size(); ++i) AddWhole(i);
  return absl::OkStatus();
}

absl::Status Checkpoint::Opener::OpenIndexed(const std::filesystem::path& folder) {
  absl::StatusOr<FileMap> map = ReadIndex(folder / kIndexName);
  if (!map.ok()) return map.status();
  for (const auto& [name, tensors] : *map) {
    const bool is_needed = !std::all_of(tensors.begin(), tensors.end(),
                                        [&](const std::string& tensor) { return Matches(options_.excluded, tensor); });
    if (!is_needed) continue;
    if (absl::Status status = AddIndexed(folder / name, tensors); !status.ok()) return status;
  }
  if (unnamed_ > 0) {
    checkpoint_.note_ = absl::StrCat(Printable(folder.string()), ": ", unnamed_, unnamed_ == 1 ? " tensor" : " tensors",
                                     " of its files left out, which ", kIndexName, " does not name");
  }
  return absl::OkStatus();
}

absl::Status Checkpoint::Opener::AddIndexed(const std::string& path, const std::set<std::string>& named) {
  const auto is_named = [&](absl::string_view name) { return named.count(std::string(name)) > 0; };
  const auto is_excluded = [&](absl::string_view name) { return Matches(options_.excluded, name); };
  const auto opened =
      SafetensorsFile::Open(path, [&](absl::string_view name) { return !is_named(name) || is_excluded(name); });
  if (!opened.ok()) return opened.status();
  const SafetensorsFile& file = **opened;
  if (absl::Status status = ShardsOpener::Refuse(file, true); !status.ok()) return status;
  checkpoint_.files_.push_back(*opened);
  std::set<absl::string_view> missing(named.begin(), named.end());
  for (size_t i = 0; i < file.tensors().size(); ++i) {
    const std::string& name = file.tensors()[i].name;
    missing.erase(name);
    if (is_named(name)) {
      AddWhole(i);
    } else if (!is_excluded(name)) {
      ++unnamed_;
    }
  }
  for (const std::string& name : file.left_out()) unnamed_ += is_named(name) || is_excluded(name) ? 0 : 1;
  for (const absl::string_view name : missing) {
    if (is_excluded(name)) continue;
    return InFile(file, absl::StrCat("tensor ", Quoted(name), " is missing, which ", kIndexName, " expects there"));
  }
  return absl::OkStatus();
}

void Checkpoint::Opener::AddWhole(size_t index) {
  const size_t file = checkpoint_.files_.size() - 1;
  const TensorSpec& spec = checkpoint_.files_[file]->tensors()[index];
  checkpoint_.tensors_.push_back(spec);
  checkpoint_.pieces_.push_back({{file, index, WholeBox(spec.shape)}});
}

}  // namespace refit
