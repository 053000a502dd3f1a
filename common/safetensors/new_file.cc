#include "common/safetensors/new_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <string>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "common/safetensors/temporary_file.h"
#include "refit/tensor_spec.h"

namespace refit {
namespace {

// Whether an error means that the file system does not support the call.
bool IsMissingCall(int error) { return error == ENOSYS || error == EOPNOTSUPP || error == EINVAL || error == EPERM; }

std::string PathOf(const FileDescriptor& file) { return absl::StrCat("/proc/self/fd/", file.get()); }

}  // namespace

absl::StatusOr<std::unique_ptr<OutputFile>> NewFile::Create(const std::filesystem::path& path, unsigned permissions) {
  std::unique_ptr<NewFile> file(new NewFile(path));
  if (absl::Status status = file->Open(permissions); !status.ok()) return status;
  struct stat info = {};
  if (fstat(file->file_.get(), &info) == 0) RemoveLeftFiles(file->folder_, info.st_mtime);
  return file;
}

NewFile::~NewFile() {
  if (!temporary_.empty()) unlink(temporary_.c_str());
}

absl::Status NewFile::WriteAt(uint64_t position, absl::Span<const std::byte> bytes) {
  return WriteAllAt(file_, position, bytes, "write", path_.native());
}

absl::Status NewFile::Commit() {
  if (fsync(file_.get()) != 0) {
    if (!IsMissingCall(errno)) return FileError(errno, "flush", path_.string());
    WarnOfFlush(errno);
  }
  struct stat old = {};
  if (lstat(path_.c_str(), &old) == 0 && !S_ISREG(old.st_mode)) {
    return absl::FailedPreconditionError(
        absl::StrCat("cannot write ", Printable(path_.string()), ": what is there by now is no regular file"));
  }
  if (S_ISREG(old.st_mode)) TakeOver(old);
  if (temporary_.empty()) {
    if (absl::Status status = Link(); !status.ok()) return status;
  }
  if (absl::Status status = Close(); !status.ok()) return status;
  if (rename(temporary_.c_str(), path_.c_str()) != 0) return RenameError(errno);
  temporary_.clear();
  FlushFolder();
  return absl::OkStatus();
}

absl::Status NewFile::Open(unsigned permissions) {
  if (!NameProbe()) return OpenTemporary(permissions);
  absl::Status status = TryRename();
  unlink(temporary_.c_str());
  temporary_.clear();
  if (!status.ok()) return status;
  file_ = FileDescriptor(open(folder_.c_str(), O_TMPFILE | O_WRONLY | O_CLOEXEC, permissions));
  return file_.valid() ? absl::OkStatus() : FileError(errno, "create a file in", folder_.string());
}

bool NewFile::NameProbe() {
  const FileDescriptor probe(open(folder_.c_str(), O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600));
  const std::filesystem::path name = folder_ / NewTemporaryName();
  if (!probe.valid() || linkat(AT_FDCWD, PathOf(probe).c_str(), AT_FDCWD, name.c_str(), AT_SYMLINK_FOLLOW) != 0) {
    return false;
  }
  temporary_ = name;
  return true;
}

absl::Status NewFile::OpenTemporary(unsigned permissions) {
  constexpr int kAttempts = 1000;  // names that a dead process with the same id may have left
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    const std::filesystem::path name = folder_ / NewTemporaryName();
    FileDescriptor file(open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, permissions));
    if (!file.valid() && errno == EEXIST) continue;
    if (!file.valid()) return FileError(errno, "create", name.string());
    temporary_ = name;
    file_ = std::move(file);
    (void)flock(file_.get(), LOCK_EX | LOCK_NB);  // on a file system without locks, no other process removes the file
    struct stat info = {};
    if (fstat(file_.get(), &info) == 0 && info.st_nlink == 0) continue;  // removed before it was locked
    return TryRename();
  }
  return absl::AlreadyExistsError(absl::StrCat("too many temporary files in ", Printable(folder_.string())));
}

absl::Status NewFile::TryRename() {
  const std::filesystem::path other = folder_ / NewTemporaryName();
  if (rename(temporary_.c_str(), other.c_str()) != 0) return RenameError(errno);
  temporary_ = other;
  return absl::OkStatus();
}

absl::Status NewFile::RenameError(int error) const {
  const std::string name = Printable(path_.string());
  if (error == EBUSY) {
    return absl::FailedPreconditionError(
        absl::StrCat("cannot replace ", name, ": it is a mount of its own; mount its folder instead"));
  }
  if (IsMissingCall(error)) {
    return absl::FailedPreconditionError(
        absl::StrCat("cannot write ", name,
                     ": its file system does not rename files, so that it could not appear as a "
                     "whole; write to another one and copy it, or pipe it there with --out -"));
  }
  return FileError(error, "write", path_.string());
}

void NewFile::TakeOver(const struct stat& old) {
  struct stat info = {};
  if (fstat(file_.get(), &info) != 0) return;
  if (info.st_uid != old.st_uid || info.st_gid != old.st_gid) (void)!fchown(file_.get(), old.st_uid, old.st_gid);
  if (info.st_mode != old.st_mode) (void)!fchmod(file_.get(), old.st_mode & ALLPERMS);
}

absl::Status NewFile::Link() {
  while (true) {
    const std::filesystem::path name = folder_ / NewTemporaryName();
    if (linkat(AT_FDCWD, PathOf(file_).c_str(), AT_FDCWD, name.c_str(), AT_SYMLINK_FOLLOW) == 0) {
      temporary_ = name;
      return absl::OkStatus();
    }
    if (errno != EEXIST) return FileError(errno, "write", path_.string());
  }
}

absl::Status NewFile::Close() {
  if (close(file_.Release()) != 0 && errno != EINTR) return FileError(errno, "write", path_.string());
  return absl::OkStatus();
}

void NewFile::FlushFolder() {
  const FileDescriptor folder(open(folder_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!folder.valid() || fsync(folder.get()) != 0) WarnOfFlush(errno);
}

void NewFile::WarnOfFlush(int error) {
  warning_ =
      absl::StrCat(Printable(path_.string()), " is written, but could not be flushed (",
                   std::error_code(error, std::generic_category()).message(), "): a crash of the machine may lose it");
}

}  // namespace refit
