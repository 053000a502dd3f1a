#include <algorithm>
#include <filesystem>
#include <new>
#include <set>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/safetensors/posix_file.h"
#include "common/safetensors/safetensors.h"
#include "common/safetensors/strict_json.h"

namespace refit {
namespace {

constexpr char kIndexName[] = "model.safetensors.index.json";
// What torch.distributed.checkpoint says of a file's tensors: where they begin in the whole ones, whose shapes it does
// not say.
constexpr char kDcpKey[] = "DCP_SHARDING_INFO";
constexpr absl::string_view kDcpPrefix = "shard-";
constexpr absl::string_view kDcpWayOut =
    "one rank's shards as torch.distributed.checkpoint saves them (DCP_SHARDING_INFO), which do not tell how large the "
    "tensors are; make whole tensors of all ranks' files first, with "
    "consolidate_safetensors_files of torch.distributed.checkpoint._consolidate_hf_safetensors, or the consolidate.sh "
    "beside NeMo Automodel's checkpoints";

// The tensors of each file, by file name.
using FileMap = std::map<std::string, std::set<std::string>>;

// A plain name: what stands under it is in the checkpoint's own folder.
bool IsPlainName(absl::string_view name) {
  constexpr absl::string_view kForbidden("/\0", 2);
  return !name.empty() && name != "." && name != ".." && name.find_first_of(kForbidden) == absl::string_view::npos;
}

// Reads {"weight_map": {tensor: file}, ...}, whatever else there is.
class IndexReader final : public StrictJsonReader {
 public:
  FileMap files;
  bool has_weight_map = false;

  bool null() override { return Skipped() || StrictJsonReader::null(); }
  bool boolean(bool value) override { return Skipped() || StrictJsonReader::boolean(value); }
  bool number_integer(number_integer_t value) override { return Skipped() || StrictJsonReader::number_integer(value); }
  bool number_unsigned(number_unsigned_t value) override {
    return Skipped() || StrictJsonReader::number_unsigned(value);
  }
  bool number_float(number_float_t value, const string_t& text) override {
    return Skipped() || StrictJsonReader::number_float(value, text);
  }
  bool string(string_t& value) override {
    if (Skipped()) return true;
    if (depth_ != 2) return StrictJsonReader::string(value);
    return AddFile(value);
  }
  bool start_object(size_t) override {
    const bool expected = depth_ == 0 || (depth_ == 1 && in_weight_map_) || Skipped();
    if (!expected) return Unexpected("an object");
    ++depth_;
    return true;
  }
  bool start_array(size_t) override {
    if (!Skipped()) return Unexpected("an array");
    ++depth_;
    return true;
  }
  bool end_object() override {
    --depth_;
    return true;
  }
  bool end_array() override {
    --depth_;
    return true;
  }
  bool key(string_t& key) override {
    if (depth_ == 1) {
      in_weight_map_ = key == "weight_map";
      if (in_weight_map_ && std::exchange(has_weight_map, true)) return Fail("has weight_map twice");
    } else if (in_weight_map_) {
      tensor_ = key;
    }
    return true;
  }

 private:
  bool Skipped() const { return depth_ > 0 && !in_weight_map_; }

  bool AddFile(const std::string& file) {
    if (!IsPlainName(file)) {
      return Fail(absl::StrCat("tensor ", Quoted(tensor_), ": expected the name of a file in the same folder, got ",
                               Quoted(file)));
    }
    return (names_.insert(tensor_).second && files[file].insert(tensor_).second) ||
           Fail(absl::StrCat("has tensor ", Quoted(tensor_), " twice"));
  }

  bool Unexpected(absl::string_view came) override {
    if (depth_ == 0) return Fail(absl::StrCat("expected an object, got ", came));
    if (depth_ == 1) return Fail(absl::StrCat("weight_map: expected an object, got ", came));
    return Fail(absl::StrCat("tensor ", Quoted(tensor_), ": expected the name of a file, got ", came));
  }

  size_t depth_ = 0;
  bool in_weight_map_ = false;
  std::string tensor_;
  std::set<std::string> names_;
};

absl::StatusOr<FileMap> ReadIndex(const std::string& path) {
  absl::StatusOr<MappedFile> file = MappedFile::Open(path);
  if (!file.ok()) return file.status();
  if (file->size() > SafetensorsFile::kMaxHeaderBytes) {
    return absl::InvalidArgumentError(absl::StrCat(Printable(path), ": expected at most ",
                                                   SafetensorsFile::kMaxHeaderBytes, " bytes, got ", file->size()));
  }
  IndexReader reader;
  absl::Status status = reader.Read(absl::string_view(file->data(), file->size()));
  if (status.ok() && !reader.has_weight_map) status = absl::InvalidArgumentError("has no weight_map");
  if (!status.ok()) return absl::InvalidArgumentError(absl::StrCat(Printable(path), ": ", status.message()));
  return std::move(reader.files);
}

absl::Status CheckAgainstIndex(const SafetensorsFile& file, const std::set<std::string>& expected) {
  std::set<absl::string_view> present;
  for (const TensorSpec& spec : file.tensors()) {
    present.insert(spec.name);
    if (expected.count(spec.name) == 0) {
      return absl::InvalidArgumentError(absl::StrCat(Printable(file.path()), ": tensor ", Quoted(spec.name),
                                                     " is not there according to ", kIndexName));
    }
  }
  for (const std::string& name : expected) {
    if (present.count(name) == 0) {
      return absl::InvalidArgumentError(absl::StrCat(Printable(file.path()), ": tensor ", Quoted(name),
                                                     " is missing, which ", kIndexName, " expects there"));
    }
  }
  return absl::OkStatus();
}

// Whether some tensor does not begin at 0, or the text is not what torch writes.
bool HasOffsets(const std::string& sharding) {
  const nlohmann::json all = nlohmann::json::parse(sharding, nullptr, false);
  if (!all.is_object()) return true;
  return std::any_of(all.begin(), all.end(), [](const nlohmann::json& tensor) {
    if (!tensor.is_object() || !tensor.contains("saved_offsets") || !tensor["saved_offsets"].is_array()) return true;
    const nlohmann::json& offsets = tensor["saved_offsets"];
    return std::any_of(offsets.begin(), offsets.end(), [](const nlohmann::json& offset) { return offset != 0; });
  });
}

// A rank's file is no model, even where it could be read as one: the first rank's tensors begin at 0 as whole ones do.
// Only an index says that a file is a whole one.
absl::Status RefuseShards(const SafetensorsFile& file, bool is_indexed) {
  const auto sharding = file.metadata().find(kDcpKey);
  if (sharding == file.metadata().end() || (is_indexed && !HasOffsets(sharding->second))) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(Printable(file.path()), " holds ", kDcpWayOut));
}

// The one *.safetensors file of a folder.
absl::StatusOr<std::string> FindOnlyFile(const std::string& folder) {
  std::vector<std::string> found;
  std::error_code error;
  for (std::filesystem::directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
    if (at->path().extension() == ".safetensors") found.push_back(at->path().string());
  }
  if (error) return FileError(error.value(), "list", folder);
  if (found.size() == 1) return found.front();
  const auto is_shard = [](const std::string& path) {
    return absl::StartsWith(std::filesystem::path(path).filename().string(), kDcpPrefix);
  };
  if (!found.empty() && std::all_of(found.begin(), found.end(), is_shard)) {
    return absl::InvalidArgumentError(
        absl::StrCat(Printable(folder), ": each of its ", found.size(), " files holds ", kDcpWayOut));
  }
  return absl::InvalidArgumentError(absl::StrCat(Printable(folder), ": expected ", kIndexName,
                                                 " or exactly one *.safetensors file, got ", found.size(),
                                                 " such files and no index"));
}

using Files = std::vector<std::shared_ptr<const SafetensorsFile>>;

absl::StatusOr<Files> OpenIndexed(const std::filesystem::path& folder) {
  absl::StatusOr<FileMap> map = ReadIndex(folder / kIndexName);
  if (!map.ok()) return map.status();
  Files files;
  for (const auto& [name, tensors] : *map) {
    auto file = SafetensorsFile::Open(folder / name);
    if (!file.ok()) return file.status();
    if (absl::Status status = RefuseShards(**file, true); !status.ok()) return status;
    if (absl::Status status = CheckAgainstIndex(**file, tensors); !status.ok()) return status;
    files.push_back(*std::move(file));
  }
  return files;
}

absl::StatusOr<Files> OpenFiles(const std::string& path) {
  std::error_code error;
  std::string only = path;
  if (std::filesystem::is_directory(path, error)) {
    if (std::filesystem::exists(std::filesystem::path(path) / kIndexName, error) || error) return OpenIndexed(path);
    absl::StatusOr<std::string> found = FindOnlyFile(path);
    if (!found.ok()) return found.status();
    only = *std::move(found);
  }
  auto file = SafetensorsFile::Open(only);
  if (!file.ok()) return file.status();
  if (absl::Status status = RefuseShards(**file, false); !status.ok()) return status;
  return Files{*std::move(file)};
}

}  // namespace

absl::StatusOr<std::shared_ptr<const Checkpoint>> Checkpoint::Open(const std::string& path) try {
  absl::StatusOr<Files> files = OpenFiles(path);
  if (!files.ok()) return files.status();
  std::shared_ptr<Checkpoint> checkpoint(new Checkpoint());
  checkpoint->files_ = *std::move(files);
  for (size_t f = 0; f < checkpoint->files_.size(); ++f) {
    const std::vector<TensorSpec>& tensors = checkpoint->files_[f]->tensors();
    checkpoint->tensors_.insert(checkpoint->tensors_.end(), tensors.begin(), tensors.end());
    for (size_t t = 0; t < tensors.size(); ++t) checkpoint->places_.emplace_back(f, t);
  }
  return checkpoint;
} catch (const std::bad_alloc&) {
  return absl::ResourceExhaustedError(absl::StrCat(Printable(path), ": no memory to read it"));
}

absl::Span<const std::byte> Checkpoint::data(size_t index) const {
  const auto [file, tensor] = places_[index];
  return files_[file]->data(tensor);
}

}  // namespace refit
