#include <algorithm>
#include <cstring>
#include <limits>
#include <new>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/safetensors/file_type.h"
#include "common/safetensors/posix_file.h"
#include "common/safetensors/safetensors.h"
#include "common/safetensors/strict_json.h"

namespace refit {
namespace {

constexpr size_t kLengthBytes = 8;
constexpr size_t kMaxMetadataEntries = 100'000;

struct Entry {
  TensorSpec spec;
  uint64_t begin = 0;  // within the data section
  uint64_t end = 0;
};

// Reads {"__metadata__": {string: string}, name: {"dtype": string, "shape": [sizes], "data_offsets": [begin, end]}}.
class HeaderReader final : public StrictJsonReader {
 public:
  std::vector<Entry> entries;
  std::map<std::string, std::string> metadata;

  bool start_object(size_t) override {
    switch (place_) {
      case Place::kStart:
        place_ = Place::kTop;
        return true;
      case Place::kTop:
        place_ = in_metadata_ ? Place::kMetadata : Place::kTensor;
        return true;
      default:
        return Unexpected("an object");
    }
  }

  bool key(string_t& key) override {
    switch (place_) {
      case Place::kTop:
        return StartValue(key);
      case Place::kMetadata:
        metadata_key_ = key;
        return true;
      default:
        return StartField(key);
    }
  }

  bool string(string_t& value) override {
    if (place_ == Place::kMetadata) return AddMetadata(value);
    if (place_ == Place::kTensor && field_ == &dtype_) {
      type_.dtype = value;
      return true;
    }
    return StrictJsonReader::string(value);
  }

  bool start_array(size_t) override {
    if (place_ != Place::kTensor || field_ == &dtype_) return Unexpected("an array");
    place_ = Place::kArray;
    return true;
  }

  bool number_unsigned(number_unsigned_t value) override {
    if (place_ != Place::kArray) return StrictJsonReader::number_unsigned(value);
    std::vector<uint64_t>& numbers = *field_->numbers;
    if (numbers.size() == field_->max_numbers) {
      return FailField(absl::StrCat("expected at most ", field_->max_numbers, " numbers, got more"));
    }
    numbers.push_back(value);
    return true;
  }

  bool end_array() override {
    place_ = Place::kTensor;
    return true;
  }

  bool end_object() override {
    const bool ok = place_ != Place::kTensor || AddTensor();
    place_ = Place::kTop;
    return ok;
  }

 private:
  enum class Place { kStart, kTop, kMetadata, kTensor, kArray };

  struct Field {
    absl::string_view name;
    absl::string_view expected;
    size_t max_numbers;
    std::vector<uint64_t>* numbers;
    bool seen = false;
  };

  bool StartValue(const std::string& key) {
    in_metadata_ = key == "__metadata__";
    if (in_metadata_ && std::exchange(metadata_seen_, true)) return Fail("has __metadata__ twice");
    entry_ = {};
    entry_.spec.name = key;
    type_ = {};
    shape_numbers_.clear();
    offset_numbers_.clear();
    for (Field* field : {&dtype_, &shape_, &offsets_}) field->seen = false;
    return true;
  }

  bool StartField(const std::string& key) {
    for (Field* field : {&dtype_, &shape_, &offsets_}) {
      if (key != field->name) continue;
      field_ = field;
      return !std::exchange(field->seen, true) || FailField("is there twice");
    }
    return FailTensor(absl::StrCat("unknown key ", Quoted(key), "; expected dtype, shape and data_offsets"));
  }

  bool AddMetadata(const std::string& value) {
    if (metadata.size() == kMaxMetadataEntries) {
      return Fail(absl::StrCat("has more than ", kMaxMetadataEntries, " entries of __metadata__"));
    }
    return metadata.emplace(metadata_key_, value).second ||
           Fail(absl::StrCat("has the __metadata__ key ", Quoted(metadata_key_), " twice"));
  }

  bool AddTensor() {
    for (const Field* field : {&dtype_, &shape_, &offsets_}) {
      if (!field->seen) return FailTensor(absl::StrCat(field->name, " is missing"));
    }
    for (uint64_t size : shape_numbers_) {
      if (size > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
        return FailTensor(absl::StrCat("shape: expected sizes of at most 2^63-1, got ", size));
      }
      type_.shape.push_back(static_cast<int64_t>(size));
    }
    if (absl::Status status = FromFileType(type_, entry_.spec); !status.ok()) return FailTensor(status.message());
    if (absl::Status status = Validate(entry_.spec); !status.ok()) return Fail(status.message());
    return SetOffsets() && (entries.push_back(std::move(entry_)), true);
  }

  bool SetOffsets() {
    if (offset_numbers_.size() != 2) {
      return FailTensor(absl::StrCat("data_offsets: expected 2 numbers, got ", offset_numbers_.size()));
    }
    entry_.begin = offset_numbers_[0];
    entry_.end = offset_numbers_[1];
    if (entry_.begin > entry_.end) {
      return FailTensor(absl::StrCat("data_offsets run backwards: [", entry_.begin, ", ", entry_.end, "]"));
    }
    if (entry_.end - entry_.begin != entry_.spec.ByteSize()) {
      return FailTensor(absl::StrCat("expected ", entry_.spec.ByteSize(), " bytes for ", entry_.spec.ToString(),
                                     ", got ", entry_.end - entry_.begin, " by data_offsets"));
    }
    return true;
  }

  bool Unexpected(absl::string_view came) override {
    switch (place_) {
      case Place::kStart:
        return Fail(absl::StrCat("expected an object, got ", came));
      case Place::kTop:
        if (in_metadata_) return Fail(absl::StrCat("__metadata__: expected an object, got ", came));
        return FailTensor(absl::StrCat("expected an object, got ", came));
      case Place::kMetadata:
        return Fail(absl::StrCat("__metadata__ key ", Quoted(metadata_key_), ": expected a string, got ", came));
      case Place::kTensor:
        return FailField(absl::StrCat("expected ", field_->expected, ", got ", came));
      case Place::kArray:
        break;
    }
    return FailField(absl::StrCat("expected whole numbers from 0 to 2^64-1, got ", came));
  }

  bool FailField(absl::string_view message) { return FailTensor(absl::StrCat(field_->name, ": ", message)); }

  bool FailTensor(absl::string_view message) {
    return Fail(absl::StrCat("tensor ", Quoted(entry_.spec.name), ": ", message));
  }

  Place place_ = Place::kStart;
  bool in_metadata_ = false;  // at kTop: what the value to come belongs to
  bool metadata_seen_ = false;
  std::string metadata_key_;
  Entry entry_;
  FileType type_;
  std::vector<uint64_t> shape_numbers_;
  std::vector<uint64_t> offset_numbers_;
  Field dtype_{"dtype", "a string", 0, nullptr};
  Field shape_{"shape", "an array of sizes", kMaxRank, &shape_numbers_};
  Field offsets_{"data_offsets", "an array of two offsets", 2, &offset_numbers_};
  Field* field_ = &dtype_;
};

absl::Status CheckNames(const std::vector<Entry>& entries) {
  std::vector<absl::string_view> names;
  names.reserve(entries.size());
  for (const Entry& entry : entries) names.emplace_back(entry.spec.name);
  std::sort(names.begin(), names.end());
  const auto twice = std::adjacent_find(names.begin(), names.end());
  if (twice == names.end()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("tensor ", Quoted(*twice), " is there twice"));
}

// Needs entries in order of their data.
absl::Status CheckLayout(const std::vector<Entry>& entries, uint64_t data_bytes) {
  uint64_t end = 0;
  for (const Entry& entry : entries) {
    if (entry.begin != end) {
      return absl::InvalidArgumentError(absl::StrCat("tensor ", Quoted(entry.spec.name), ": expected data from byte ",
                                                     end, ", got ", entry.begin, ", which ",
                                                     entry.begin < end ? "overlaps another tensor" : "leaves a hole"));
    }
    end = entry.end;
    if (end > data_bytes) {
      return absl::InvalidArgumentError(absl::StrCat("tensor ", Quoted(entry.spec.name), ": expected data up to byte ",
                                                     end, ", but the file is truncated after ", data_bytes));
    }
  }
  if (end == data_bytes) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("expected ", end, " bytes of data, got ", data_bytes, "; the last belong to no tensor"));
}

absl::Status InFile(const std::string& path, const absl::Status& status) {
  if (status.ok()) return status;
  return absl::Status(status.code(), absl::StrCat(Printable(path), ": ", status.message()));
}

}  // namespace

class SafetensorsFile::Mapping : public MappedFile {
 public:
  explicit Mapping(MappedFile file) : MappedFile(std::move(file)) {}
};

SafetensorsFile::SafetensorsFile(std::string path, std::unique_ptr<Mapping> mapping)
    : path_(std::move(path)), mapping_(std::move(mapping)) {}

SafetensorsFile::~SafetensorsFile() = default;

absl::StatusOr<std::shared_ptr<const SafetensorsFile>> SafetensorsFile::Open(const std::string& path) try {
  absl::StatusOr<MappedFile> mapped = MappedFile::Open(path);
  if (!mapped.ok()) return mapped.status();
  std::shared_ptr<SafetensorsFile> file(new SafetensorsFile(path, std::make_unique<Mapping>(*std::move(mapped))));
  if (absl::Status status = file->ParseHeader(); !status.ok()) return InFile(path, status);
  return file;
} catch (const std::bad_alloc&) {
  return absl::ResourceExhaustedError(absl::StrCat(Printable(path), ": no memory for the header"));
}

absl::Status SafetensorsFile::ParseHeader() {
  const size_t file_bytes = mapping_->size();
  if (file_bytes < kLengthBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("expected ", kLengthBytes, " bytes of header length, but the file has ", file_bytes));
  }
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, mapping_->data(), kLengthBytes);
  if (header_bytes > kMaxHeaderBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("expected a header of at most ", kMaxHeaderBytes, " bytes, got one of ", header_bytes));
  }
  if (header_bytes > file_bytes - kLengthBytes) {
    return absl::InvalidArgumentError(absl::StrCat("expected a header of ", header_bytes, " bytes, but only ",
                                                   file_bytes - kLengthBytes, " follow: the file is truncated"));
  }
  const absl::string_view header(mapping_->data() + kLengthBytes, header_bytes);
  if (header.empty() || header[0] != '{') return absl::InvalidArgumentError("header: expected it to begin with {");

  HeaderReader reader;
  if (absl::Status status = reader.Read(header); !status.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("header: ", status.message()));
  }
  std::vector<Entry>& entries = reader.entries;
  // An empty tensor comes before the one that has data at the same place.
  std::stable_sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  const auto* data = reinterpret_cast<const std::byte*>(header.data() + header.size());
  const size_t data_bytes = file_bytes - kLengthBytes - header_bytes;
  if (absl::Status status = CheckNames(entries); !status.ok()) return status;
  if (absl::Status status = CheckLayout(entries, data_bytes); !status.ok()) return status;

  for (Entry& entry : entries) {
    data_.emplace_back(data + entry.begin, entry.end - entry.begin);
    tensors_.push_back(std::move(entry.spec));
  }
  metadata_ = std::move(reader.metadata);
  return absl::OkStatus();
}

}  // namespace refit
