#include "common/safetensors/shard_metadata.h"

#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/safetensors/tensor_fields_reader.h"

namespace refit {
namespace {

absl::Status InFile(const std::string& path, absl::string_view message) {
  return absl::InvalidArgumentError(absl::StrCat(Printable(path), ": metadata ", kShardsKey, ": ", message));
}

class ShardsReader final : public TensorFieldsReader {
 public:
  std::vector<ShardEntry> entries;

  bool string(string_t& value) override {
    if (place() != Place::kTensor || field_ != Field::kDType) return StrictJsonReader::string(value);
    const absl::StatusOr<DType> dtype = ParseDType(value);
    if (!dtype.ok()) return FailTensor(dtype.status().message());
    entry_.dtype = *dtype;
    return true;
  }

 private:
  enum class Field { kShape, kOffsets, kDType };

  const char* FieldName() const {
    return field_ == Field::kShape ? "shape" : field_ == Field::kOffsets ? "offsets" : "dtype";
  }

  bool StartTensor() override {
    entry_ = {};
    entry_.name = tensor();
    has_shape_ = false;
    return names_.insert(tensor()).second;
  }

  bool StartField(const std::string& key) override {
    bool again = false;
    if (key == "shape") {
      field_ = Field::kShape;
      again = std::exchange(has_shape_, true);
    } else if (key == "offsets") {
      field_ = Field::kOffsets;
      again = entry_.offsets.has_value();
      entry_.offsets.emplace();
    } else if (key == "dtype") {
      field_ = Field::kDType;
      again = entry_.dtype.has_value();
    } else {
      return FailTensor(absl::StrCat("unknown key ", Quoted(key), "; expected shape, offsets and dtype"));
    }
    return !again || FailTensor(absl::StrCat(FieldName(), " is there twice"));
  }

  Shape* Numbers() override {
    if (field_ == Field::kDType) return nullptr;
    return field_ == Field::kShape ? &entry_.shape : &*entry_.offsets;
  }

  std::string TooMany() const override {
    return absl::StrCat(FieldName(), ": expected at most ", kMaxRank, " numbers, got more");
  }

  bool EndTensor() override {
    if (!has_shape_) return FailTensor("shape is missing");
    entries.push_back(std::move(entry_));
    return true;
  }

  bool Unexpected(absl::string_view came) override {
    switch (place()) {
      case Place::kStart:
        return Fail(absl::StrCat("expected an object, got ", came));
      case Place::kTop:
        return FailTensor(absl::StrCat("expected an object, got ", came));
      case Place::kTensor:
        return FailTensor(absl::StrCat(FieldName(), ": expected ",
                                       field_ == Field::kDType ? "the name of a dtype" : "an array of numbers",
                                       ", got ", came));
      case Place::kArray:
        break;
    }
    return FailTensor(absl::StrCat(FieldName(), ": expected whole numbers from 0 to 2^63-1, got ", came));
  }

  Field field_ = Field::kShape;
  ShardEntry entry_;
  bool has_shape_ = false;
  std::set<std::string> names_;
};

// The tensor that an entry names, if the files hold it.
struct Held {
  const TensorSpec* spec = nullptr;
  size_t index = 0;
};

absl::StatusOr<FileShard> AbsentShard(const ShardEntry& entry) {
  const auto fail = [&](absl::string_view why) {
    return absl::InvalidArgumentError(absl::StrCat("tensor ", Quoted(entry.name), " is not in the file: ", why));
  };
  if (!entry.dtype.has_value()) return fail("a dtype is needed to say that this is so by intention");
  if (entry.shape.empty()) return fail("a 0-D tensor has no empty part, so every rank must hold it");
  TensorSpec tensor{entry.name, *entry.dtype, entry.shape};
  if (absl::Status status = Validate(tensor); !status.ok()) return status;
  const Shape nothing(entry.shape.size(), 0);
  Box box{entry.offsets.value_or(nothing), nothing};
  if (absl::Status status = Validate(box, tensor.shape); !status.ok()) return fail(status.message());
  return FileShard{{std::move(tensor), std::move(box)}, std::nullopt};
}

absl::StatusOr<FileShard> HeldShard(const ShardEntry& entry, const Held& held) {
  const auto fail = [&](absl::string_view why) {
    return absl::InvalidArgumentError(absl::StrCat("tensor ", held.spec->ToString(), ": ", why));
  };
  if (!entry.offsets.has_value()) return fail("offsets are missing");
  if (entry.dtype.has_value() && *entry.dtype != held.spec->dtype) {
    return fail(absl::StrCat("the dtype is said to be ", Name(*entry.dtype)));
  }
  TensorSpec tensor{entry.name, held.spec->dtype, entry.shape};
  if (absl::Status status = Validate(tensor); !status.ok()) return status;
  Box box{*entry.offsets, held.spec->shape};
  if (absl::Status status = Validate(box, tensor.shape); !status.ok()) return fail(status.message());
  return FileShard{{std::move(tensor), std::move(box)}, held.index};
}

// An entry, and the file whose metadata has it.
struct EntryInFile {
  ShardEntry entry;
  std::string path;
};

// The entries of all files. Equal entries of several files count once.
absl::StatusOr<std::vector<EntryInFile>> ReadEntries(const Checkpoint& checkpoint, bool& found) {
  std::vector<EntryInFile> all;
  std::map<std::string, size_t> places;
  for (const auto& file : checkpoint.files()) {
    const auto value = file->metadata().find(kShardsKey);
    if (value == file->metadata().end()) continue;
    found = true;
    absl::StatusOr<std::vector<ShardEntry>> entries = ParseShardMetadata(value->second);
    if (!entries.ok()) return InFile(file->path(), entries.status().message());
    for (ShardEntry& entry : *entries) {
      const auto [place, is_new] = places.emplace(entry.name, all.size());
      if (!is_new && all[place->second].entry == entry) continue;
      if (!is_new) {
        return InFile(file->path(), absl::StrCat("tensor ", Quoted(entry.name), ": ",
                                                 Printable(all[place->second].path), " says something else of it"));
      }
      all.push_back({std::move(entry), file->path()});
    }
  }
  return all;
}

}  // namespace

absl::StatusOr<std::vector<ShardEntry>> ParseShardMetadata(absl::string_view json) {
  ShardsReader reader;
  if (absl::Status status = reader.Read(json); !status.ok()) return status;
  return std::move(reader.entries);
}

absl::StatusOr<std::string> FormatShardMetadata(absl::Span<const TensorPart> parts) try {
  std::vector<std::string> members;
  for (const TensorPart& part : parts) {
    std::string member =
        absl::StrCat(nlohmann::json(part.tensor.name).dump(), ":{\"shape\":[", absl::StrJoin(part.tensor.shape, ","),
                     "],\"offsets\":[", absl::StrJoin(part.box.offsets, ","), "]");
    // So that the file may omit the tensor.
    if (part.ByteSize() == 0) absl::StrAppend(&member, ",\"dtype\":\"", Name(part.tensor.dtype), "\"");
    members.push_back(member + "}");
  }
  return absl::StrCat("{", absl::StrJoin(members, ","), "}");
} catch (const nlohmann::json::exception&) {
  return absl::InvalidArgumentError("metadata of shards: a tensor's name is no valid UTF-8");
}

absl::StatusOr<std::optional<std::vector<FileShard>>> ReadShards(const Checkpoint& checkpoint) {
  bool found = false;
  absl::StatusOr<std::vector<EntryInFile>> entries = ReadEntries(checkpoint, found);
  if (!entries.ok()) return entries.status();
  if (!found) return std::nullopt;
  std::map<absl::string_view, Held> held;
  for (size_t i = 0; i < checkpoint.tensors().size(); ++i) {
    held.emplace(checkpoint.tensors()[i].name, Held{&checkpoint.tensors()[i], i});
  }
  std::vector<FileShard> shards;
  for (const EntryInFile& next : *entries) {
    const auto tensor = held.find(next.entry.name);
    absl::StatusOr<FileShard> shard =
        tensor == held.end() ? AbsentShard(next.entry) : HeldShard(next.entry, tensor->second);
    if (!shard.ok()) return InFile(next.path, shard.status().message());
    shards.push_back(*std::move(shard));
    if (tensor != held.end()) held.erase(tensor);
  }
  for (size_t i = 0; i < checkpoint.tensors().size(); ++i) {
    const TensorSpec& tensor = checkpoint.tensors()[i];
    if (held.count(tensor.name) > 0) shards.push_back({TensorPart::Whole(tensor), i});
  }
  return std::optional(std::move(shards));
}

}  // namespace refit
