#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <new>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/safetensors/posix_file.h"
#include "common/safetensors/safetensors.h"

namespace refit {
namespace {

constexpr size_t kLengthBytes = 8;
constexpr size_t kHeaderAlignment = 8;
constexpr absl::string_view kTemporaryPrefix = ".refit-";
constexpr absl::string_view kTemporarySuffix = ".tmp";

// Throws if `text` is no valid UTF-8.
std::string JsonString(absl::string_view text) { return nlohmann::json(std::string(text)).dump(); }

std::string JsonTensor(const TensorSpec& spec, uint64_t begin) {
  return absl::StrCat(JsonString(spec.name), ":{\"dtype\":\"", Name(spec.dtype), "\",\"shape\":[",
                      absl::StrJoin(spec.shape, ","), "],\"data_offsets\":[", begin, ",", begin + spec.ByteSize(),
                      "]}");
}

std::string JsonMetadata(const std::map<std::string, std::string>& metadata) {
  const auto append_pair = [](std::string* out, const auto& pair) {
    absl::StrAppend(out, JsonString(pair.first), ":", JsonString(pair.second));
  };
  return absl::StrCat("\"__metadata__\":{", absl::StrJoin(metadata, ",", append_pair), "}");
}

// Length and JSON, padded with spaces so that the data is aligned.
std::string Header(const std::vector<TensorSpec>& tensors, const std::map<std::string, std::string>& metadata) {
  std::vector<std::string> members;
  if (!metadata.empty()) members.push_back(JsonMetadata(metadata));
  uint64_t begin = 0;
  for (const TensorSpec& spec : tensors) {
    members.push_back(JsonTensor(spec, begin));
    begin += spec.ByteSize();
  }
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

struct TemporaryFile {
  FileDescriptor file;
  std::string path;
};

// Created with the permissions that the process gives to any new file, which mkostemp would not.
absl::StatusOr<TemporaryFile> CreateTemporaryFile(const std::filesystem::path& folder, unsigned permissions) {
  static std::atomic<uint64_t> counter = 0;
  constexpr int kAttempts = 1000;  // names that a process of the same id, now dead, may have left
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    std::string path = folder / absl::StrCat(kTemporaryPrefix, getpid(), "-", ++counter, kTemporarySuffix);
    FileDescriptor file(open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, permissions));
    if (file.valid()) return TemporaryFile{std::move(file), std::move(path)};
    if (errno != EEXIST) return FileError(errno, "create", path);
  }
  return absl::AlreadyExistsError(absl::StrCat("too many temporary files in ", Printable(folder.string())));
}

absl::Status WriteAll(int fd, absl::string_view path, uint64_t position, const std::byte* data, size_t size) {
  while (size > 0) {
    const ssize_t written = pwrite(fd, data, size, static_cast<off_t>(position));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return FileError(errno, "write", path);
    data += written;
    size -= static_cast<size_t>(written);
    position += static_cast<uint64_t>(written);
  }
  return absl::OkStatus();
}

}  // namespace

struct SafetensorsWriter::State {
  std::string path;
  std::filesystem::path folder;
  TemporaryFile temporary;
  std::vector<TensorSpec> tensors;
  std::vector<uint64_t> positions;              // of each tensor in the file
  std::vector<std::atomic<uint64_t>> received;  // bytes of each tensor
  bool open = true;
};

SafetensorsWriter::SafetensorsWriter(std::unique_ptr<State> state) : state_(std::move(state)) {}

SafetensorsWriter::~SafetensorsWriter() {
  if (state_->open) unlink(state_->temporary.path.c_str());
}

absl::StatusOr<std::unique_ptr<SafetensorsWriter>> SafetensorsWriter::Create(
    const std::string& path, std::vector<TensorSpec> tensors, const std::map<std::string, std::string>& metadata,
    unsigned permissions) try {
  const std::string place = Printable(path);
  const auto refuse = [&](absl::string_view why) {
    return absl::InvalidArgumentError(absl::StrCat("cannot write ", place, ": ", why));
  };
  if (absl::Status status = Check(tensors); !status.ok()) return refuse(status.message());
  const std::string header = Header(tensors, metadata);
  if (header.size() > SafetensorsFile::kMaxHeaderBytes) {
    return refuse(absl::StrCat("its header would have ", header.size(), " bytes; at most ",
                               SafetensorsFile::kMaxHeaderBytes, " are accepted"));
  }
  const std::filesystem::path target(path);
  std::error_code ignored;
  if (!target.has_filename() || std::filesystem::is_directory(target, ignored)) return refuse("it is a folder");
  std::filesystem::path folder = target.has_parent_path() ? target.parent_path() : ".";

  absl::StatusOr<TemporaryFile> temporary = CreateTemporaryFile(folder, permissions);
  if (!temporary.ok()) return temporary.status();
  auto state = std::make_unique<State>();
  state->path = path;
  state->folder = std::move(folder);
  state->temporary = *std::move(temporary);
  state->received = std::vector<std::atomic<uint64_t>>(tensors.size());
  uint64_t position = header.size();
  for (const TensorSpec& spec : tensors) {
    state->positions.push_back(position);
    position += spec.ByteSize();
  }
  state->tensors = std::move(tensors);
  // From here on the destructor removes the file.
  std::unique_ptr<SafetensorsWriter> writer(new SafetensorsWriter(std::move(state)));
  const auto* bytes = reinterpret_cast<const std::byte*>(header.data());
  if (absl::Status status = WriteAll(writer->state_->temporary.file.get(), path, 0, bytes, header.size());
      !status.ok()) {
    return status;
  }
  return writer;
} catch (const nlohmann::json::exception&) {
  return absl::InvalidArgumentError(absl::StrCat("cannot write ", Printable(path), ": metadata is no valid UTF-8"));
} catch (const std::bad_alloc&) {
  return absl::ResourceExhaustedError(absl::StrCat("cannot write ", Printable(path), ": no memory for its header"));
}

bool SafetensorsWriter::IsTemporary(absl::string_view file_name) {
  return absl::StartsWith(file_name, kTemporaryPrefix) && absl::EndsWith(file_name, kTemporarySuffix);
}

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
  absl::Status status =
      WriteAll(state.temporary.file.get(), state.path, state.positions[index] + offset, bytes.data(), bytes.size());
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
  if (fsync(state.temporary.file.get()) != 0) return FileError(errno, "flush", state.path);
  if (rename(state.temporary.path.c_str(), state.path.c_str()) != 0) return FileError(errno, "write", state.path);
  state.open = false;
  // The new name lasts only once its folder is flushed.
  const FileDescriptor folder(open(state.folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!folder.valid() || fsync(folder.get()) != 0) return FileError(errno, "flush the folder of", state.path);
  return absl::OkStatus();
}

}  // namespace refit
