#include <algorithm>
#include <atomic>
#include <new>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/safetensors/file_type.h"
#include "common/safetensors/output_file.h"
#include "common/safetensors/safetensors.h"
#include "common/safetensors/temporary_file.h"

namespace refit {
namespace {

constexpr size_t kLengthBytes = 8;
constexpr size_t kHeaderAlignment = 8;

// Throws if `text` is not valid UTF-8.
std::string JsonString(absl::string_view text) { return nlohmann::json(std::string(text)).dump(); }

std::string JsonTensor(const TensorSpec& spec, const FileType& type, uint64_t begin) {
  return absl::StrCat(JsonString(spec.name), ":{\"dtype\":\"", type.dtype, "\",\"shape\":[",
                      absl::StrJoin(type.shape, ","), "],\"data_offsets\":[", begin, ",", begin + spec.ByteSize(),
                      "]}");
}

std::string JsonMetadata(const std::map<std::string, std::string>& metadata) {
  const auto append_pair = [](std::string* out, const auto& pair) {
    absl::StrAppend(out, JsonString(pair.first), ":", JsonString(pair.second));
  };
  return absl::StrCat("\"__metadata__\":{", absl::StrJoin(metadata, ",", append_pair), "}");
}

absl::StatusOr<std::vector<FileType>> ToFileTypes(const std::vector<TensorSpec>& tensors) {
  std::vector<FileType> types;
  for (const TensorSpec& spec : tensors) {
    absl::StatusOr<FileType> type = ToFileType(spec);
    if (!type.ok()) return type.status();
    types.push_back(*std::move(type));
  }
  return types;
}

// Length and JSON, padded with spaces so that the data is aligned.
std::string Header(const std::vector<TensorSpec>& tensors, const std::vector<FileType>& types,
                   const std::vector<uint64_t>& places, const std::map<std::string, std::string>& metadata) {
  std::vector<std::string> members;
  if (!metadata.empty()) members.push_back(JsonMetadata(metadata));
  for (size_t i = 0; i < tensors.size(); ++i) members.push_back(JsonTensor(tensors[i], types[i], places[i]));
  std::string json = absl::StrCat("{", absl::StrJoin(members, ","), "}");
  json.resize((json.size() + kHeaderAlignment - 1) / kHeaderAlignment * kHeaderAlignment, ' ');
  std::string header(kLengthBytes, '\0');
  for (size_t i = 0; i < kLengthBytes; ++i)
    header[i] = static_cast<char>(static_cast<uint64_t>(json.size()) >> (8 * i));
  return header + json;
}

absl::Status Check(const std::vector<TensorSpec>& tensors) {
  std::set<absl::string_view> names;
  uint64_t bytes = 0;
  for (const TensorSpec& spec : tensors) {
    if (absl::Status status = Validate(spec); !status.ok()) return status;
    if (spec.name == "__metadata__") {
      return absl::InvalidArgumentError("\"__metadata__\" cannot be a tensor's name in a safetensors file");
    }
    if (!names.insert(spec.name).second) {
      return absl::InvalidArgumentError(absl::StrCat("tensor \"", Printable(spec.name), "\" is there twice"));
    }
    bytes += spec.ByteSize();
    if (bytes > uint64_t{1} << 62) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor \"", Printable(spec.name), "\" takes the file beyond 2^62 bytes"));
    }
  }
  return absl::OkStatus();
}

// Where each tensor's data begins after the header: in the given order or, if that would put a tensor at an offset that
// is not a multiple of its element size, in the order of falling element sizes.
std::vector<uint64_t> Places(const std::vector<TensorSpec>& tensors, SafetensorsWriter::Layout layout) {
  std::vector<size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::vector<uint64_t> places(tensors.size());
  const auto place = [&] {
    bool is_aligned = true;
    uint64_t begin = 0;
    for (const size_t i : order) {
      places[i] = begin;
      is_aligned = is_aligned && begin % ElementSize(tensors[i].dtype) == 0;
      begin += tensors[i].ByteSize();
    }
    return is_aligned;
  };
  if (place() || layout == SafetensorsWriter::Layout::kAsGiven) return places;
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return ElementSize(tensors[a].dtype) > ElementSize(tensors[b].dtype); });
  place();
  return places;
}

}  // namespace

struct SafetensorsWriter::State {
  std::string path;
  std::unique_ptr<OutputFile> file;
  std::vector<TensorSpec> tensors;
  std::vector<uint64_t> positions;              // in the file, for each tensor
  std::vector<std::atomic<uint64_t>> received;  // bytes, for each tensor
  bool open = true;
};

SafetensorsWriter::SafetensorsWriter(std::unique_ptr<State> state) : state_(std::move(state)) {}

SafetensorsWriter::~SafetensorsWriter() = default;

absl::StatusOr<std::unique_ptr<SafetensorsWriter>> SafetensorsWriter::Create(
    const std::string& path, std::vector<TensorSpec> tensors, const std::map<std::string, std::string>& metadata,
    unsigned permissions, Layout layout) try {
  const auto refuse = [&](absl::string_view why) {
    return absl::InvalidArgumentError(absl::StrCat("cannot write ", Printable(path), ": ", why));
  };
  if (absl::Status status = Check(tensors); !status.ok()) return refuse(status.message());
  const absl::StatusOr<std::vector<FileType>> types = ToFileTypes(tensors);
  if (!types.ok()) return refuse(types.status().message());
  std::vector<uint64_t> positions = Places(tensors, layout);
  const std::string header = Header(tensors, *types, positions, metadata);
  if (header.size() > SafetensorsFile::kMaxHeaderBytes) {
    return refuse(absl::StrCat("its header would have ", header.size(), " bytes; at most ",
                               SafetensorsFile::kMaxHeaderBytes, " are accepted"));
  }
  absl::StatusOr<std::unique_ptr<OutputFile>> file = OutputFile::Create(path, permissions);
  if (!file.ok()) return file.status();
  for (uint64_t& position : positions) position += header.size();
  auto state = std::make_unique<State>();
  state->path = path;
  state->file = *std::move(file);
  state->received = std::vector<std::atomic<uint64_t>>(tensors.size());
  state->positions = std::move(positions);
  state->tensors = std::move(tensors);
  const auto* bytes = reinterpret_cast<const std::byte*>(header.data());
  if (absl::Status status = state->file->WriteAt(0, {bytes, header.size()}); !status.ok()) return status;
  return std::unique_ptr<SafetensorsWriter>(new SafetensorsWriter(std::move(state)));
} catch (const nlohmann::json::exception&) {
  return absl::InvalidArgumentError(absl::StrCat("cannot write ", Printable(path), ": metadata is no valid UTF-8"));
} catch (const std::bad_alloc&) {
  return absl::ResourceExhaustedError(absl::StrCat("cannot write ", Printable(path), ": no memory for its header"));
}

bool SafetensorsWriter::IsTemporary(absl::string_view file_name) { return IsTemporaryName(file_name); }

absl::Status SafetensorsWriter::WriteAt(size_t index, uint64_t offset, absl::Span<const std::byte> bytes) {
  State& state = *state_;
  if (!state.open) return absl::FailedPreconditionError(absl::StrCat(Printable(state.path), " is already committed"));
  if (index >= state.tensors.size()) {
    return absl::OutOfRangeError(
        absl::StrCat("tensor ", index, " of ", state.tensors.size(), " in ", Printable(state.path)));
  }
  const uint64_t size = state.tensors[index].ByteSize();
  if (offset > size || bytes.size() > size - offset) {
    return absl::OutOfRangeError(absl::StrCat("tensor ", state.tensors[index].ToString(), ": ", bytes.size(),
                                              " bytes from ", offset, " on exceed its ", size));
  }
  absl::Status status = state.file->WriteAt(state.positions[index] + offset, bytes);
  if (status.ok()) state.received[index] += bytes.size();
  return status;
}

absl::Status SafetensorsWriter::Commit() {
  State& state = *state_;
  if (!state.open) return absl::FailedPreconditionError(absl::StrCat(Printable(state.path), " is already committed"));
  for (size_t i = 0; i < state.tensors.size(); ++i) {
    const uint64_t size = state.tensors[i].ByteSize();
    if (state.received[i] >= size) continue;
    return absl::FailedPreconditionError(absl::StrCat("tensor ", state.tensors[i].ToString(), ": expected ", size,
                                                      " bytes, ", state.received[i].load(), " came"));
  }
  state.open = false;
  return state.file->Commit();
}

const std::string& SafetensorsWriter::warning() const { return state_->file->warning(); }

}  // namespace refit
