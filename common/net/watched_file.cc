#include "common/net/watched_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace refit {
namespace {

constexpr size_t kMaxBytes = 1 << 20;

absl::Status CheckRegular(const struct stat& file, const std::string& path) {
  if (S_ISREG(file.st_mode)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("'", path, "' is not a regular file"));
}

absl::Status CheckNotForEveryone(const struct stat& file, const std::string& path) {
  if ((file.st_mode & S_IWOTH) == 0) return absl::OkStatus();
  return absl::PermissionDeniedError(absl::StrCat(
      "'", path, "' decides whom to trust and anyone may write it; close it with: chmod o-w '", path, "'"));
}

absl::Status CheckSecret(const struct stat& file, const std::string& path) {
  const bool is_ours_alone = file.st_uid == geteuid() && file.st_uid != 0;
  const mode_t others = S_IRWXO | (is_ours_alone ? S_IRWXG : S_IWGRP);
  if ((file.st_mode & others) == 0) return absl::OkStatus();
  return absl::PermissionDeniedError(absl::StrCat(
      "'", path, "' holds a secret and is open to others", absl::StrFormat(" (mode %04o)", file.st_mode & 07777),
      "; close it with: chmod 600 '", path,
      "'; a secret that Kubernetes mounts, by defaultMode: 0400, and fsGroup in the pod's securityContext if the "
      "process is not root"));
}

absl::Status CannotOpen(int error, const std::string& path) {
  absl::Status status = absl::ErrnoToStatus(error, absl::StrCat("cannot open '", path, "'"));
  if (error != EACCES) return status;
  return absl::PermissionDeniedError(
      absl::StrCat(status.message(), "; this process is of user ", geteuid(),
                   ". A secret that Kubernetes mounts is root's: fsGroup in the pod's securityContext opens it to the "
                   "process's group"));
}

using Check = absl::Status (*)(const struct stat&, const std::string&);

absl::StatusOr<std::string> ReadChecked(const std::string& path, std::initializer_list<Check> checks) {
  // Non-blocking: it may be a pipe without a writer.
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return CannotOpen(errno, path);
  const absl::Cleanup closed = [fd] { close(fd); };
  struct stat file = {};
  if (fstat(fd, &file) != 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot look at '", path, "'"));
  for (const Check check : checks) {
    if (absl::Status status = check(file, path); !status.ok()) return status;
  }
  std::string text(kMaxBytes + 1, '\0');
  size_t size = 0;
  while (size < text.size()) {
    const ssize_t got = read(fd, text.data() + size, text.size() - size);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot read '", path, "'"));
    if (got == 0) break;
    size += static_cast<size_t>(got);
  }
  if (size > kMaxBytes) {
    return absl::InvalidArgumentError(absl::StrCat("'", path, "' is larger than ", kMaxBytes, " bytes"));
  }
  text.resize(size);
  return text;
}

}  // namespace

FileStamp StampOf(const std::string& path) {
  struct stat file = {};
  if (stat(path.c_str(), &file) != 0) return {};
  return {file.st_dev, file.st_ino, file.st_size, file.st_mtim.tv_sec, file.st_mtim.tv_nsec};
}

absl::StatusOr<std::string> ReadSmallFile(const std::string& path) {
  return ReadChecked(path, {CheckRegular, CheckNotForEveryone});
}

absl::StatusOr<std::string> ReadSecretFile(const std::string& path) {
  return ReadChecked(path, {CheckRegular, CheckSecret});
}

}  // namespace refit
