#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <new>
#include <utility>

#include "absl/container/inlined_vector.h"
#include "absl/strings/str_cat.h"
#include "common/safetensors/file_type.h"
#include "common/safetensors/posix_file.h"
#include "common/safetensors/safetensors.h"
#include "common/safetensors/strict_json.h"

namespace refit {
namespace {

constexpr size_t kLengthBytes = 8;
constexpr size_t kMaxMetadataEntries = 100'000;

// An entry of the header, not yet checked.
struct Entry {
  std::string name;
  std::string dtype;
  absl::InlinedVector<uint64_t, 4> shape;
  absl::InlinedVector<uint64_t, 2> offsets;  // begin and end of the data, within the data section
  size_t shape_numbers = 0;                  // including those beyond kMaxRank, which `shape` does not keep
  size_t place = 0;                          // among the header's entries

  uint64_t begin() const { return offsets[0]; }
  uint64_t end() const { return offsets[1]; }
};

// Reads {"__metadata__": {string: string}, name: {"dtype": string, "shape": [sizes], "data_offsets": [begin, end]}}. As
// in the reference implementation, other keys of a tensor are skipped, and the last of several equal names counts.
class HeaderReader final : public StrictJsonReader {
 public:
  std::vector<Entry> entries;
  std::map<std::string, std::string> metadata;

  bool null() override { return Skips() || (place_ == Place::kTop && in_metadata_) || StrictJsonReader::null(); }
  bool boolean(bool value) override { return Skips() || StrictJsonReader::boolean(value); }
  bool number_integer(number_integer_t value) override { return Skips() || StrictJsonReader::number_integer(value); }
  bool number_float(number_float_t value, const string_t& text) override {
    return Skips() || StrictJsonReader::number_float(value, text);
  }

  bool start_object(size_t) override {
    if (Skips()) return Descend();
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
    if (skipped_depth_ > 0) return true;
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
    if (Skips()) return true;
    if (place_ == Place::kMetadata) return AddMetadata(value);
    if (place_ != Place::kTensor || field_ != Field::kDType) return StrictJsonReader::string(value);
    entries.back().dtype = value;
    return true;
  }

  bool start_array(size_t) override {
    if (Skips()) return Descend();
    if (place_ != Place::kTensor || field_ == Field::kDType) return Unexpected("an array");
    place_ = Place::kArray;
    return true;
  }

  bool number_unsigned(number_unsigned_t value) override {
    if (Skips()) return true;
    if (place_ != Place::kArray) return StrictJsonReader::number_unsigned(value);
    Entry& entry = entries.back();
    if (field_ == Field::kShape) {
      if (++entry.shape_numbers <= kMaxRank) entry.shape.push_back(value);
      return true;
    }
    if (entry.offsets.size() == 2) return FailField("expected 2 numbers, got more");
    entry.offsets.push_back(value);
    return true;
  }

  bool end_array() override {
    if (skipped_depth_ > 0) return Ascend();
    place_ = Place::kTensor;
    return true;
  }

  bool end_object() override {
    if (skipped_depth_ > 0) return Ascend();
    const bool ok = place_ != Place::kTensor || EndTensor();
    place_ = Place::kTop;
    return ok;
  }

 private:
  enum class Place { kStart, kTop, kMetadata, kTensor, kArray };
  enum class Field { kDType, kShape, kOffsets, kUnknown };
  static constexpr absl::string_view kFieldNames[] = {"dtype", "shape", "data_offsets"};
  // The depth of values of unknown keys. Together with the two levels above, this is the depth that the reference
  // implementation reads.
  static constexpr size_t kMaxSkippedDepth = 125;

  // Whether the next value belongs to an unknown key.
  bool Skips() const { return skipped_depth_ > 0 || (place_ == Place::kTensor && field_ == Field::kUnknown); }
  bool Descend() { return ++skipped_depth_ <= kMaxSkippedDepth || FailTensor("JSON is nested too deep"); }
  bool Ascend() { return --skipped_depth_, true; }

  bool StartValue(const std::string& key) {
    in_metadata_ = key == "__metadata__";
    if (in_metadata_) return !std::exchange(metadata_seen_, true) || Fail("has __metadata__ twice");
    entries.emplace_back().name = key;
    entries.back().place = entries.size();
    seen_.fill(false);
    return true;
  }

  bool StartField(const std::string& key) {
    for (const Field field : {Field::kDType, Field::kShape, Field::kOffsets}) {
      if (key != NameOf(field)) continue;
      field_ = field;
      return !std::exchange(seen_[static_cast<size_t>(field)], true) || FailField("is there twice");
    }
    field_ = Field::kUnknown;
    return true;
  }

  bool AddMetadata(const std::string& value) {
    metadata[metadata_key_] = value;
    return metadata.size() <= kMaxMetadataEntries ||
           Fail(absl::StrCat("has more than ", kMaxMetadataEntries, " entries of __metadata__"));
  }

  bool EndTensor() {
    for (const Field field : {Field::kDType, Field::kShape, Field::kOffsets}) {
      if (!seen_[static_cast<size_t>(field)]) return FailTensor(absl::StrCat(NameOf(field), " is missing"));
    }
    const size_t offsets = entries.back().offsets.size();
    return offsets == 2 || FailTensor(absl::StrCat("data_offsets: expected 2 numbers, got ", offsets));
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
        return FailField(absl::StrCat("expected ",
                                      field_ == Field::kDType   ? "a string"
                                      : field_ == Field::kShape ? "an array of sizes"
                                                                : "an array of two offsets",
                                      ", got ", came));
      case Place::kArray:
        break;
    }
    return FailField(absl::StrCat("expected whole numbers from 0 to 2^64-1, got ", came));
  }

  static absl::string_view NameOf(Field field) { return kFieldNames[static_cast<size_t>(field)]; }

  bool FailField(absl::string_view message) { return FailTensor(absl::StrCat(NameOf(field_), ": ", message)); }

  bool FailTensor(absl::string_view message) {
    return Fail(absl::StrCat("tensor ", Quoted(entries.back().name), ": ", message));
  }

  Place place_ = Place::kStart;
  bool in_metadata_ = false;  // at kTop: whether the next value belongs to the metadata
  bool metadata_seen_ = false;
  std::string metadata_key_;
  Field field_ = Field::kDType;
  std::array<bool, 3> seen_ = {};  // of the tensor's fields
  size_t skipped_depth_ = 0;
};

// The last of several equal names counts, as in the reference implementation, which checks only the dtypes of the
// others.
absl::Status RemoveRepeated(std::vector<Entry>& entries) {
  std::map<absl::string_view, const Entry*> last;
  for (const Entry& entry : entries) last[entry.name] = &entry;
  if (last.size() == entries.size()) return absl::OkStatus();
  std::vector<Entry> kept;
  for (const Entry& entry : entries) {
    TensorSpec any;
    if (last[entry.name] == &entry) {
      kept.push_back(entry);
    } else if (absl::Status status = FromFileType({entry.dtype, {8}}, any); !status.ok()) {
      return absl::InvalidArgumentError(absl::StrCat("tensor ", Quoted(entry.name), ": ", status.message()));
    }
  }
  entries = std::move(kept);
  return absl::OkStatus();
}

absl::StatusOr<TensorSpec> SpecOf(const Entry& entry) {
  const auto fail = [&](absl::string_view message) {
    return absl::InvalidArgumentError(absl::StrCat("tensor ", Quoted(entry.name), ": ", message));
  };
  if (entry.shape_numbers > kMaxRank) {
    return fail(absl::StrCat("shape: expected at most ", kMaxRank, " numbers, got ", entry.shape_numbers));
  }
  FileType type{entry.dtype, {}};
  for (const uint64_t size : entry.shape) {
    if (size > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return fail(absl::StrCat("shape: expected sizes of at most 2^63-1, got ", size));
    }
    type.shape.push_back(static_cast<int64_t>(size));
  }
  TensorSpec spec{entry.name};
  if (absl::Status status = FromFileType(type, spec); !status.ok()) return fail(status.message());
  if (absl::Status status = Validate(spec); !status.ok()) return status;
  if (entry.begin() > entry.end()) {
    return fail(absl::StrCat("data_offsets run backwards: [", entry.begin(), ", ", entry.end(), "]"));
  }
  if (entry.end() - entry.begin() != spec.ByteSize()) {
    return fail(absl::StrCat("expected ", spec.ByteSize(), " bytes for ", spec.ToString(), ", got ",
                             entry.end() - entry.begin(), " by data_offsets"));
  }
  return spec;
}

// The entries must be in the order of their data.
absl::Status CheckLayout(const std::vector<Entry>& entries, uint64_t data_bytes) {
  uint64_t end = 0;
  for (const Entry& entry : entries) {
    if (entry.begin() != end) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", Quoted(entry.name), ": expected data from byte ", end, ", got ", entry.begin(),
                       ", which ", entry.begin() < end ? "overlaps another tensor" : "leaves a hole"));
    }
    end = entry.end();
    if (end > data_bytes) {
      return absl::InvalidArgumentError(absl::StrCat("tensor ", Quoted(entry.name), ": expected data up to byte ", end,
                                                     ", but the file is truncated after ", data_bytes));
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

absl::StatusOr<std::shared_ptr<const SafetensorsFile>> SafetensorsFile::Open(const std::string& path,
                                                                             const NameFilter& unwanted) try {
  absl::StatusOr<MappedFile> mapped = MappedFile::Open(path);
  if (!mapped.ok()) return mapped.status();
  std::shared_ptr<SafetensorsFile> file(new SafetensorsFile(path, std::make_unique<Mapping>(*std::move(mapped))));
  if (absl::Status status = file->ParseHeader(unwanted); !status.ok()) return InFile(path, status);
  return file;
} catch (const std::bad_alloc&) {
  return absl::ResourceExhaustedError(absl::StrCat(Printable(path), ": no memory for the header"));
}

absl::Status SafetensorsFile::ParseHeader(const NameFilter& unwanted) {
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
  // The parser would skip a byte order mark.
  if (const size_t first = header.find_first_not_of(" \t\r\n"); first == header.npos || header[first] != '{') {
    return absl::InvalidArgumentError("header: expected it to begin with {");
  }

  HeaderReader reader;
  if (absl::Status status = reader.Read(header); !status.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("header: ", status.message()));
  }
  std::vector<Entry>& entries = reader.entries;
  if (absl::Status status = RemoveRepeated(entries); !status.ok()) return status;
  // An empty tensor comes before the tensor that has data at the same place.
  std::stable_sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::pair(a.begin(), a.end()) < std::pair(b.begin(), b.end());
  });
  const auto* data = reinterpret_cast<const std::byte*>(header.data() + header.size());
  const size_t data_bytes = file_bytes - kLengthBytes - header_bytes;
  std::map<size_t, size_t> by_place;
  for (const Entry& entry : entries) {
    absl::StatusOr<TensorSpec> spec = SpecOf(entry);
    if (!spec.ok() && unwanted && unwanted(entry.name)) {
      left_out_.push_back(entry.name);
      continue;
    }
    if (!spec.ok()) return spec.status();
    data_.emplace_back(data + entry.begin(), entry.end() - entry.begin());
    by_place[entry.place] = tensors_.size();
    tensors_.push_back(*std::move(spec));
  }
  if (absl::Status status = CheckLayout(entries, data_bytes); !status.ok()) return status;
  for (const auto& [place, index] : by_place) header_order_.push_back(index);
  metadata_ = std::move(reader.metadata);
  return absl::OkStatus();
}

}  // namespace refit
