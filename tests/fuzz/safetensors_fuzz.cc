// safetensors files, checkpoint indices and shard metadata of any bytes. What opens is consistent, and every byte of it
// may be read.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/safetensors/dcp_shards.h"
#include "common/safetensors/safetensors.h"
#include "common/safetensors/shard_metadata.h"
#include "tests/fuzz/fuzz_check.h"
#include "tests/fuzz/fuzz_input.h"

namespace refit {
namespace {

// A file in memory, with a path.
class MemoryFile {
 public:
  explicit MemoryFile(const std::string& bytes) : fd_(memfd_create("fuzz", MFD_CLOEXEC)) {
    FUZZ_CHECK(write(fd_, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()));
  }
  ~MemoryFile() { close(fd_); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;
  std::string path() const { return absl::StrCat("/proc/self/fd/", fd_); }

 private:
  int fd_;
};

// A folder of a checkpoint in two files whose index is about to be replaced.
class Folder {
 public:
  Folder() : path_(std::filesystem::temp_directory_path() / absl::StrCat("refit-fuzz-", getpid())) {
    std::filesystem::create_directories(path_);
    for (const char* name : {"a", "b"}) {
      auto writer = SafetensorsWriter::Create(Path(absl::StrCat(name, ".safetensors")), {{name, DType::kU8, {1}}});
      FUZZ_CHECK(writer.ok()) << writer.status().ToString();
      const std::byte one{1};
      FUZZ_CHECK((*writer)->WriteAt(0, 0, {&one, 1}).ok());
      FUZZ_CHECK((*writer)->Commit().ok());
    }
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  std::string path() const { return path_; }
  std::string Path(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

void CheckRefusal(const absl::Status& status) {
  FUZZ_CHECK(!status.message().empty());
  FUZZ_CHECK(absl::IsInvalidArgument(status) || absl::IsNotFound(status) || absl::IsResourceExhausted(status))
      << status.ToString();
}

void CheckFile(const std::string& bytes) {
  const MemoryFile file(bytes);
  const auto opened = SafetensorsFile::Open(file.path());
  if (!opened.ok()) {
    CheckRefusal(opened.status());
    return;
  }
  const SafetensorsFile& tensors = **opened;
  uint64_t total = 0;
  unsigned sum = 0;
  for (size_t i = 0; i < tensors.tensors().size(); ++i) {
    const TensorSpec& spec = tensors.tensors()[i];
    const auto elements = ElementCount(spec.shape);
    FUZZ_CHECK(elements.ok()) << spec.ToString();
    FUZZ_CHECK(tensors.data(i).size() == static_cast<uint64_t>(*elements) * ElementSize(spec.dtype)) << spec.ToString();
    for (const std::byte byte : tensors.data(i)) sum += std::to_integer<unsigned>(byte);
    total += tensors.data(i).size();
  }
  FUZZ_CHECK(total + 8 <= bytes.size()) << total << sum;
  const auto again = Checkpoint::Open(file.path());
  if (tensors.metadata().count(kDcpShardingKey) > 0) {
    FUZZ_CHECK(!again.ok());  // a rank's shards
    return;
  }
  FUZZ_CHECK(again.ok()) << again.status().ToString();
  FUZZ_CHECK((*again)->tensors() == tensors.tensors());
  (void)ReadShards(**again);
}

// So that changes to the header do not all end at its length.
std::string WithLengths(const std::string& header, size_t data_bytes) {
  std::string file;
  for (int shift = 0; shift < 64; shift += 8) file.push_back(static_cast<char>(uint64_t{header.size()} >> shift));
  return file + header + std::string(data_bytes, 'd');
}

void CheckIndex(const std::string& json) {
  static const Folder folder;
  std::ofstream(folder.Path("model.safetensors.index.json"), std::ios::binary) << json;
  const auto opened = Checkpoint::Open(folder.path());
  if (!opened.ok()) {
    CheckRefusal(opened.status());
    return;
  }
  for (const auto& file : (*opened)->files()) {
    FUZZ_CHECK(std::filesystem::path(file->path()).parent_path() == folder.path()) << file->path();
  }
}

void CheckShards(const std::string& json) {
  const auto entries = ParseShardMetadata(json);
  if (!entries.ok()) {
    CheckRefusal(entries.status());
    return;
  }
  for (const ShardEntry& entry : *entries) FUZZ_CHECK(entry.shape.size() <= kMaxRank) << entry.name;
}

void CheckDcpOffsets(const std::string& json) {
  const auto offsets = ParseDcpOffsets(json);
  if (!offsets.ok()) {
    CheckRefusal(offsets.status());
    return;
  }
  for (const auto& [name, offset] : *offsets) FUZZ_CHECK(offset.size() <= kMaxRank) << name;
}

}  // namespace
}  // namespace refit

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  refit::FuzzInput input(data, size);
  switch (input.Below(5)) {
    case 0:
      refit::CheckFile(input.Rest());
      break;
    case 1: {
      const size_t data_bytes = input.Below(256);
      refit::CheckFile(refit::WithLengths(input.Rest(), data_bytes));
      break;
    }
    case 2:
      refit::CheckIndex(input.Rest());
      break;
    case 3:
      refit::CheckShards(input.Rest());
      break;
    default:
      refit::CheckDcpOffsets(input.Rest());
  }
  return 0;
}
