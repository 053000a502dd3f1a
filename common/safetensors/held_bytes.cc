#include "common/safetensors/held_bytes.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"

namespace refit {
namespace {

constexpr uint64_t kMaxInMemory = 64 << 20;
constexpr uint64_t kPieceBytes = 1 << 20;

}  // namespace

absl::Status HeldBytes::Add(uint64_t position, absl::Span<const std::byte> bytes) {
  if (in_memory_ + bytes.size() <= kMaxInMemory) {
    in_memory_ += bytes.size();
    held_.emplace(position, Run{bytes.size(), {bytes.begin(), bytes.end()}});
    return absl::OkStatus();
  }
  if (absl::Status status = WriteToFile(position, bytes); !status.ok()) return status;
  held_.emplace(position, Run{bytes.size(), {}});
  return absl::OkStatus();
}

absl::Status HeldBytes::TakeFirst(absl::FunctionRef<absl::Status(absl::Span<const std::byte>)> take) {
  const auto node = held_.extract(held_.begin());
  const Run& run = node.mapped();
  if (!run.bytes.empty()) {
    in_memory_ -= run.size;
    return take(run.bytes);
  }
  std::vector<std::byte> piece(std::min<uint64_t>(run.size, kPieceBytes));
  for (uint64_t done = 0; done < run.size;) {
    const auto at = static_cast<off_t>(node.key() + done);
    const ssize_t got = pread(file_.get(), piece.data(), std::min<uint64_t>(piece.size(), run.size - done), at);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return FileError(got == 0 ? EIO : errno, "read back", folder_);
    const absl::Status status = take({piece.data(), static_cast<size_t>(got)});
    if (!status.ok()) return status;
    (void)fallocate(file_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, got);  // may fail on some file systems
    done += static_cast<uint64_t>(got);
  }
  return absl::OkStatus();
}

absl::Status HeldBytes::Open() {
  std::error_code error;
  folder_ = std::filesystem::temp_directory_path(error).string();
  std::string name = absl::StrCat(error ? "/tmp" : folder_, "/refit-XXXXXX");
  file_ = FileDescriptor(mkostemp(name.data(), O_CLOEXEC));
  if (!file_.valid()) return FileError(errno, "create a file in", folder_);
  unlink(name.c_str());
  return absl::OkStatus();
}

absl::Status HeldBytes::WriteToFile(uint64_t position, absl::Span<const std::byte> bytes) {
  if (!file_.valid()) {
    if (absl::Status status = Open(); !status.ok()) return status;
  }
  return WriteAllAt(file_, position, bytes, "keep bytes whose turn has not come in", folder_);
}

}  // namespace refit
