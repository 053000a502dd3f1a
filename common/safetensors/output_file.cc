#include "common/safetensors/output_file.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <poll.h>
#include <pthread.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <climits>
#include <csignal>
#include <cstdlib>
#include <ctime>
#include <map>
#include <mutex>
#include <new>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/safetensors/posix_file.h"
#include "refit/tensor_spec.h"

namespace refit {
namespace {

constexpr int kMaxLinks = 40;  // as the kernel follows
constexpr absl::string_view kTemporaryPrefix = ".refit-";
constexpr absl::string_view kTemporarySuffix = ".tmp";
constexpr time_t kDaySeconds = 86400;

absl::Status CannotWrite(const std::filesystem::path& path, absl::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat("cannot write ", Printable(path.string()), ": ", why));
}

bool IsInProc(const std::filesystem::path& link) {
  struct statfs info = {};
  return statfs(link.has_parent_path() ? link.parent_path().c_str() : ".", &info) == 0 &&
         info.f_type == PROC_SUPER_MAGIC;
}

// The number that a link as /proc/self/fd/1 stands for, or -1.
int OwnDescriptor(const std::filesystem::path& link) {
  std::error_code error;
  const std::filesystem::path folder = std::filesystem::canonical(link.parent_path(), error);
  int number = -1;
  if (error || folder != absl::StrCat("/proc/", getpid(), "/fd") ||
      !absl::SimpleAtoi(link.filename().string(), &number)) {
    return -1;
  }
  return number;
}

absl::StatusOr<OutputTarget> TargetAt(const std::filesystem::path& path, mode_t mode) {
  using Kind = OutputTarget::Kind;
  if (S_ISREG(mode)) return OutputTarget{Kind::kFile, path};
  if (S_ISCHR(mode) || S_ISFIFO(mode)) return OutputTarget{Kind::kStream, path};
  return CannotWrite(path, S_ISDIR(mode)   ? "it is a folder"
                           : S_ISBLK(mode) ? "it is a block device"
                                           : "it is a socket");
}

// Errors of a call that a file system does not have.
bool IsMissingCall(int error) { return error == ENOSYS || error == EOPNOTSUPP || error == EINVAL || error == EPERM; }

// write(2), but for the SIGPIPE of a pipe without a reader: EPIPE says it.
ssize_t WriteSilently(int fd, const std::byte* data, size_t size) {
  sigset_t pipe;
  sigset_t old;
  sigset_t pending;
  sigemptyset(&pipe);
  sigaddset(&pipe, SIGPIPE);
  sigpending(&pending);
  pthread_sigmask(SIG_BLOCK, &pipe, &old);
  const ssize_t written = write(fd, data, size);
  const int error = errno;
  if (written < 0 && error == EPIPE && sigismember(&pending, SIGPIPE) == 0) {
    const struct timespec now = {};
    while (sigtimedwait(&pipe, nullptr, &now) < 0 && errno == EINTR) continue;
  }
  pthread_sigmask(SIG_SETMASK, &old, nullptr);
  errno = error;
  return written;
}

// Bytes whose turn has not come: in memory up to a limit, beyond it in a file without a name in the folder for
// temporary ones, each at its place in the stream, so that it has holes where nothing is held.
class HeldBytes {
 public:
  bool HasAt(uint64_t position) const { return !held_.empty() && held_.begin()->first == position; }

  absl::Status Add(uint64_t position, absl::Span<const std::byte> bytes) {
    if (in_memory_ + bytes.size() <= kMaxInMemory) {
      in_memory_ += bytes.size();
      held_.emplace(position, Run{bytes.size(), {bytes.begin(), bytes.end()}});
      return absl::OkStatus();
    }
    if (absl::Status status = WriteToFile(position, bytes); !status.ok()) return status;
    held_.emplace(position, Run{bytes.size(), {}});
    return absl::OkStatus();
  }

  // Takes the first run out, piece by piece.
  absl::Status TakeFirst(absl::FunctionRef<absl::Status(absl::Span<const std::byte>)> take) {
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
      (void)fallocate(file_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, got);  // a file system without it
      done += static_cast<uint64_t>(got);
    }
    return absl::OkStatus();
  }

 private:
  static constexpr uint64_t kMaxInMemory = 64 << 20;
  static constexpr uint64_t kPieceBytes = 1 << 20;
  struct Run {
    uint64_t size;
    std::vector<std::byte> bytes;  // empty if they are in the file
  };

  absl::Status Open() {
    std::error_code error;
    folder_ = std::filesystem::temp_directory_path(error).string();
    std::string name = absl::StrCat(error ? "/tmp" : folder_, "/refit-XXXXXX");
    file_ = FileDescriptor(mkostemp(name.data(), O_CLOEXEC));
    if (!file_.valid()) return FileError(errno, "create a file in", folder_);
    unlink(name.c_str());
    return absl::OkStatus();
  }

  absl::Status WriteToFile(uint64_t position, absl::Span<const std::byte> bytes) {
    if (!file_.valid()) {
      if (absl::Status status = Open(); !status.ok()) return status;
    }
    while (!bytes.empty()) {
      const ssize_t written = pwrite(file_.get(), bytes.data(), bytes.size(), static_cast<off_t>(position));
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) return FileError(errno, "keep bytes whose turn has not come in", folder_);
      bytes.remove_prefix(static_cast<size_t>(written));
      position += static_cast<uint64_t>(written);
    }
    return absl::OkStatus();
  }

  std::map<uint64_t, Run> held_;  // by their places
  uint64_t in_memory_ = 0;
  std::string folder_;
  FileDescriptor file_;
};

// A device, a pipe, or a descriptor of this process.
class Stream final : public OutputFile {
 public:
  static absl::StatusOr<std::unique_ptr<OutputFile>> Open(const OutputTarget& target) {
    const std::string name = target.path.string();
    const bool is_own = target.kind == OutputTarget::Kind::kDescriptor;
    // Opened to wait, a pipe that nobody reads would hold this process for ever.
    FileDescriptor file(is_own ? fcntl(target.descriptor, F_DUPFD_CLOEXEC, 0)
                               : open(name.c_str(), O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
    if (!file.valid() && errno == ENXIO) {
      return absl::FailedPreconditionError(
          absl::StrCat("cannot write ", Printable(name), ": nobody reads it; start its reader first"));
    }
    if (!file.valid()) return FileError(errno, "open", name);
    return std::unique_ptr<OutputFile>(new Stream(name, std::move(file)));
  }

  absl::Status WriteAt(uint64_t position, absl::Span<const std::byte> bytes) override try {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (position != written_) return bytes.empty() ? absl::OkStatus() : held_.Add(position, bytes);
    absl::Status status = Write(bytes);
    while (status.ok() && held_.HasAt(written_)) {
      status = held_.TakeFirst([this](absl::Span<const std::byte> next) { return Write(next); });
    }
    return status;
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no memory to bring the bytes of ", Printable(name_), " into order; write to a file instead"));
  }

  absl::Status Commit() override { return absl::OkStatus(); }

 private:
  Stream(std::string name, FileDescriptor file) : name_(std::move(name)), file_(std::move(file)) {}

  absl::Status Write(absl::Span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const ssize_t written = WriteSilently(file_.get(), bytes.data(), bytes.size());
      if (written >= 0) {
        bytes.remove_prefix(static_cast<size_t>(written));
        written_ += static_cast<uint64_t>(written);
      } else if (errno == EAGAIN) {
        pollfd ready = {file_.get(), POLLOUT, 0};
        poll(&ready, 1, -1);
      } else if (errno != EINTR) {
        return FileError(errno, "write", name_);
      }
    }
    return absl::OkStatus();
  }

  const std::string name_;
  const FileDescriptor file_;
  std::mutex mutex_;
  uint64_t written_ = 0;
  HeldBytes held_;
};

std::string HostName() {
  char name[HOST_NAME_MAX + 1] = {};
  if (gethostname(name, sizeof name - 1) != 0) return "localhost";
  std::string text = name;
  std::replace(text.begin(), text.end(), '/', '_');
  return text;
}

// Of this process, on this machine.
std::string NewTemporaryName() {
  static std::atomic<uint64_t> counter = 0;
  return absl::StrCat(kTemporaryPrefix, HostName(), "-", getpid(), "-", ++counter, kTemporarySuffix);
}

// A writer holds a lock on its file as long as it lives. Other machines' locks may not be seen here, so that their
// files are only taken for left once they are old.
// `now` is the file system's own time, which need not be this host's.
bool IsLeft(const std::filesystem::path& path, bool from_here, time_t now) {
  const FileDescriptor file(open(path.c_str(), O_WRONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC));
  struct stat info = {};
  if (!file.valid() || fstat(file.get(), &info) != 0 || !S_ISREG(info.st_mode)) return false;
  if (!from_here && now - info.st_mtime < kDaySeconds) return false;
  return flock(file.get(), LOCK_EX | LOCK_NB) == 0;
}

void RemoveLeftFiles(const std::filesystem::path& folder, time_t now) {
  const std::string here = absl::StrCat(kTemporaryPrefix, HostName(), "-");
  std::error_code error;
  for (std::filesystem::directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
    const std::string name = at->path().filename().string();
    if (!IsTemporaryName(name) || !IsLeft(at->path(), absl::StartsWith(name, here), now)) continue;
    unlink(at->path().c_str());
  }
}

// What becomes a regular file, new or instead of an old one.
class NewFile final : public OutputFile {
 public:
  static absl::StatusOr<std::unique_ptr<OutputFile>> Create(const std::filesystem::path& path, unsigned permissions) {
    std::unique_ptr<NewFile> file(new NewFile(path));
    if (absl::Status status = file->Open(permissions); !status.ok()) return status;
    struct stat info = {};
    if (fstat(file->file_.get(), &info) == 0) RemoveLeftFiles(file->folder_, info.st_mtime);
    return file;
  }

  ~NewFile() override {
    if (!temporary_.empty()) unlink(temporary_.c_str());
  }

  absl::Status WriteAt(uint64_t position, absl::Span<const std::byte> bytes) override {
    while (!bytes.empty()) {
      const ssize_t written = pwrite(file_.get(), bytes.data(), bytes.size(), static_cast<off_t>(position));
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) return FileError(errno, "write", path_.string());
      bytes.remove_prefix(static_cast<size_t>(written));
      position += static_cast<uint64_t>(written);
    }
    return absl::OkStatus();
  }

  absl::Status Commit() override {
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

 private:
  explicit NewFile(std::filesystem::path path)
      : path_(std::move(path)), folder_(path_.has_parent_path() ? path_.parent_path() : ".") {}

  absl::Status Open(unsigned permissions) {
    if (!NameProbe()) return OpenTemporary(permissions);
    absl::Status status = TryRename();
    unlink(temporary_.c_str());
    temporary_.clear();
    if (!status.ok()) return status;
    file_ = FileDescriptor(open(folder_.c_str(), O_TMPFILE | O_WRONLY | O_CLOEXEC, permissions));
    return file_.valid() ? absl::OkStatus() : FileError(errno, "create a file in", folder_.string());
  }

  // Gives a name to a nameless file of no bytes: one whose name is taken away again gets no other. False where there
  // are no such files, or no way to name one.
  bool NameProbe() {
    const FileDescriptor probe(open(folder_.c_str(), O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600));
    const std::filesystem::path name = folder_ / NewTemporaryName();
    if (!probe.valid() || linkat(AT_FDCWD, NameOf(probe).c_str(), AT_FDCWD, name.c_str(), AT_SYMLINK_FOLLOW) != 0) {
      return false;
    }
    temporary_ = name;
    return true;
  }

  // Created with the permissions that the process gives to any new file, which mkostemp would not.
  absl::Status OpenTemporary(unsigned permissions) {
    constexpr int kAttempts = 1000;  // names that a process of the same id, now dead, may have left
    for (int attempt = 0; attempt < kAttempts; ++attempt) {
      const std::filesystem::path name = folder_ / NewTemporaryName();
      FileDescriptor file(open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, permissions));
      if (!file.valid() && errno == EEXIST) continue;
      if (!file.valid()) return FileError(errno, "create", name.string());
      temporary_ = name;
      file_ = std::move(file);
      (void)flock(file_.get(), LOCK_EX | LOCK_NB);  // a file system without locks: nobody takes the file for left
      struct stat info = {};
      if (fstat(file_.get(), &info) == 0 && info.st_nlink == 0) continue;  // taken for left before it was locked
      return TryRename();
    }
    return absl::AlreadyExistsError(absl::StrCat("too many temporary files in ", Printable(folder_.string())));
  }

  // Better known before all bytes have come than after.
  absl::Status TryRename() {
    const std::filesystem::path other = folder_ / NewTemporaryName();
    if (rename(temporary_.c_str(), other.c_str()) != 0) return RenameError(errno);
    temporary_ = other;
    return absl::OkStatus();
  }

  absl::Status RenameError(int error) const {
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

  // Owner and permissions, as if the old file had been written to. Not all file systems have them, nor may all users.
  void TakeOver(const struct stat& old) {
    struct stat info = {};
    if (fstat(file_.get(), &info) != 0) return;
    if (info.st_uid != old.st_uid || info.st_gid != old.st_gid) (void)!fchown(file_.get(), old.st_uid, old.st_gid);
    if (info.st_mode != old.st_mode) (void)!fchmod(file_.get(), old.st_mode & ALLPERMS);
  }

  static std::string NameOf(const FileDescriptor& file) { return absl::StrCat("/proc/self/fd/", file.get()); }

  // linkat replaces nothing, so that the way to the name leads over a temporary one.
  absl::Status Link() {
    while (true) {
      const std::filesystem::path name = folder_ / NewTemporaryName();
      if (linkat(AT_FDCWD, NameOf(file_).c_str(), AT_FDCWD, name.c_str(), AT_SYMLINK_FOLLOW) == 0) {
        temporary_ = name;
        return absl::OkStatus();
      }
      if (errno != EEXIST) return FileError(errno, "write", path_.string());
    }
  }

  // Shares and object stores may tell only now that bytes were not stored.
  absl::Status Close() {
    if (close(file_.Release()) != 0 && errno != EINTR) return FileError(errno, "write", path_.string());
    return absl::OkStatus();
  }

  // The new name lasts only once its folder is flushed; but it is there.
  void FlushFolder() {
    const FileDescriptor folder(open(folder_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!folder.valid() || fsync(folder.get()) != 0) WarnOfFlush(errno);
  }

  void WarnOfFlush(int error) {
    warning_ = absl::StrCat(Printable(path_.string()), " is written, but could not be flushed (",
                            std::error_code(error, std::generic_category()).message(),
                            "): a crash of the machine may lose it");
  }

  const std::filesystem::path path_;
  const std::filesystem::path folder_;
  std::filesystem::path temporary_;  // its name before Commit, if it has one
  FileDescriptor file_;
};

}  // namespace

absl::StatusOr<OutputTarget> ResolveOutput(const std::string& path) {
  std::filesystem::path at = path;
  if (!at.has_filename()) return CannotWrite(path, "it is a folder");
  for (int links = 0; links < kMaxLinks; ++links) {
    struct stat info = {};
    if (lstat(at.c_str(), &info) != 0) return OutputTarget{OutputTarget::Kind::kFile, at};
    if (!S_ISLNK(info.st_mode)) return TargetAt(at, info.st_mode);
    if (IsInProc(at)) {
      const int own = OwnDescriptor(at);
      if (own < 0) return CannotWrite(at, "it is no descriptor of this process");
      return OutputTarget{OutputTarget::Kind::kDescriptor, at, own};
    }
    std::error_code error;
    const std::filesystem::path next = std::filesystem::read_symlink(at, error);
    if (error) return FileError(error.value(), "follow", at.string());
    at = at.parent_path() / next;
  }
  return CannotWrite(path, "its links lead in a circle");
}

absl::StatusOr<std::unique_ptr<OutputFile>> OutputFile::Create(const std::string& path, unsigned permissions) {
  const absl::StatusOr<OutputTarget> target = ResolveOutput(path);
  if (!target.ok()) return target.status();
  if (target->kind == OutputTarget::Kind::kFile) return NewFile::Create(target->path, permissions);
  return Stream::Open(*target);
}

bool IsTemporaryName(absl::string_view file_name) {
  return absl::StartsWith(file_name, kTemporaryPrefix) && absl::EndsWith(file_name, kTemporarySuffix);
}

}  // namespace refit
