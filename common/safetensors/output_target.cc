#include "common/safetensors/output_target.h"

#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <system_error>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/safetensors/posix_file.h"
#include "refit/tensor_spec.h"

namespace refit {
namespace {

constexpr int kMaxLinks = 40;  // the kernel's limit

absl::Status CannotWrite(const std::filesystem::path& path, absl::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat("cannot write ", Printable(path.string()), ": ", why));
}

bool IsInProc(const std::filesystem::path& link) {
  struct statfs info = {};
  return statfs(link.has_parent_path() ? link.parent_path().c_str() : ".", &info) == 0 &&
         info.f_type == PROC_SUPER_MAGIC;
}

// The number in a link such as /proc/self/fd/1, or -1.
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

}  // namespace refit
