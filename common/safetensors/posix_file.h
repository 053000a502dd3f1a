// File operations of the operating system, with statuses and owning types. For this project's own use.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace refit {

// "cannot <action> <path>: No such file or directory", with the code that fits `error`.
absl::Status FileError(int error, absl::string_view action, absl::string_view path);

class FileDescriptor {
 public:
  FileDescriptor() = default;
  explicit FileDescriptor(int fd) : fd_(fd) {}
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept;
  ~FileDescriptor();

  bool valid() const { return fd_ >= 0; }
  int get() const { return fd_; }
  // Returns the descriptor, which the caller must close.
  int Release() { return std::exchange(fd_, -1); }

 private:
  int fd_ = -1;
};

// Writes all of `bytes` at `position`. Errors as FileError.
absl::Status WriteAllAt(const FileDescriptor& file, uint64_t position, absl::Span<const std::byte> bytes,
                        absl::string_view action, absl::string_view path);

// A regular file, mapped read-only. If its file system cannot map files, it is read into memory.
class MappedFile {
 public:
  static absl::StatusOr<MappedFile> Open(const std::string& path);
  MappedFile(MappedFile&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  MappedFile& operator=(MappedFile&&) = delete;
  ~MappedFile();

  const char* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  MappedFile(const char* data, size_t size) : data_(data), size_(size) {}
  static absl::StatusOr<MappedFile> ReadIntoMemory(const FileDescriptor& file, size_t size, const std::string& path);
  const char* data_;  // null for an empty file
  size_t size_;
};

}  // namespace refit
