#include "common/safetensors/posix_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "absl/strings/str_cat.h"
#include "common/limits/process_limits.h"
#include "refit/tensor_spec.h"

namespace refit {

absl::Status FileError(int error, absl::string_view action, absl::string_view path) {
  const absl::Status status = absl::ErrnoToStatus(error, absl::StrCat("cannot ", action, " ", Printable(path)));
  switch (error) {
    case ENOTDIR:
      return absl::NotFoundError(status.message());
    case EMFILE:
    case ENFILE:
      return absl::ResourceExhaustedError(
          absl::StrCat("cannot ", action, " ", Printable(path), ": ", WhyNotOpened(error)));
    case EFBIG:
    case EDQUOT:
    case ENOSPC:
      return absl::ResourceExhaustedError(status.message());
    case EISDIR:
    case ELOOP:
    case ENAMETOOLONG:
      return absl::InvalidArgumentError(status.message());
    default:
      return status;
  }
}

FileDescriptor& FileDescriptor::operator=(FileDescriptor&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

FileDescriptor::~FileDescriptor() {
  if (fd_ >= 0) close(fd_);
}

absl::Status WriteAllAt(const FileDescriptor& file, uint64_t position, absl::Span<const std::byte> bytes,
                        absl::string_view action, absl::string_view path) {
  while (!bytes.empty()) {
    const ssize_t written = pwrite(file.get(), bytes.data(), bytes.size(), static_cast<off_t>(position));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return FileError(errno, action, path);
    bytes.remove_prefix(static_cast<size_t>(written));
    position += static_cast<uint64_t>(written);
  }
  return absl::OkStatus();
}

absl::StatusOr<MappedFile> MappedFile::Open(const std::string& path) {
  // Without O_NONBLOCK, opening a named pipe would block until its other end is opened.
  const FileDescriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!file.valid()) return FileError(errno, "open", path);
  struct stat info = {};
  if (fstat(file.get(), &info) != 0) return FileError(errno, "examine", path);
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(
        absl::StrCat(Printable(path), " is ", S_ISDIR(info.st_mode) ? "a folder" : "no regular file"));
  }
  const auto size = static_cast<size_t>(info.st_size);
  if (size == 0) return MappedFile(nullptr, 0);
  void* data = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.get(), 0);
  if (data == MAP_FAILED && (errno == ENODEV || errno == EOPNOTSUPP)) return ReadIntoMemory(file, size, path);
  if (data == MAP_FAILED && errno == ENOMEM) {
    return absl::ResourceExhaustedError(absl::StrCat("cannot map ", Printable(path), ": ", WhyNotMapped(size, ENOMEM)));
  }
  if (data == MAP_FAILED) return FileError(errno, "map", path);
  return MappedFile(static_cast<const char*>(data), size);
}

absl::StatusOr<MappedFile> MappedFile::ReadIntoMemory(const FileDescriptor& file, size_t size,
                                                      const std::string& path) {
  void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    return absl::ResourceExhaustedError(absl::StrCat("cannot read ", Printable(path), ": its file system does not map ",
                                                     "files, and ", WhyNotMapped(size, errno)));
  }
  MappedFile whole(static_cast<const char*>(memory), size);
  for (size_t done = 0; done < size;) {
    const ssize_t got = pread(file.get(), static_cast<char*>(memory) + done, size - done, static_cast<off_t>(done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return FileError(errno, "read", path);
    if (got == 0) return absl::InvalidArgumentError(absl::StrCat(Printable(path), " was cut while it was read"));
    done += static_cast<size_t>(got);
  }
  return whole;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) munmap(const_cast<char*>(data_), size_);
}

}  // namespace refit
