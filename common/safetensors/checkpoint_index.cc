#include "common/safetensors/checkpoint_index.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/safetensors/posix_file.h"
#include "common/safetensors/safetensors.h"
#include "common/safetensors/strict_json.h"

namespace refit {
namespace {

// A plain file name, which can only refer to a file in the checkpoint's folder.
bool IsPlainName(absl::string_view name) {
  constexpr absl::string_view kForbidden("/\0", 2);
  return !name.empty() && name != "." && name != ".." && name.find_first_of(kForbidden) == absl::string_view::npos;
}

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

}  // namespace

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

}  // namespace refit
