#include "common/safetensors/temporary_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <climits>
#include <cstdint>
#include <system_error>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/safetensors/posix_file.h"

namespace refit {
namespace {

constexpr absl::string_view kTemporaryPrefix = ".refit-";
constexpr absl::string_view kTemporarySuffix = ".tmp";
constexpr time_t kDaySeconds = 86400;

std::string HostName() {
  char name[HOST_NAME_MAX + 1] = {};
  if (gethostname(name, sizeof name - 1) != 0) return "localhost";
  std::string text = name;
  std::replace(text.begin(), text.end(), '/', '_');
  return text;
}

bool IsLeft(const std::filesystem::path& path, bool from_here, time_t now) {
  const FileDescriptor file(open(path.c_str(), O_WRONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC));
  struct stat info = {};
  if (!file.valid() || fstat(file.get(), &info) != 0 || !S_ISREG(info.st_mode)) return false;
  if (!from_here && now - info.st_mtime < kDaySeconds) return false;
  return flock(file.get(), LOCK_EX | LOCK_NB) == 0;
}

}  // namespace

std::string NewTemporaryName() {
  static std::atomic<uint64_t> counter = 0;
  return absl::StrCat(kTemporaryPrefix, HostName(), "-", getpid(), "-", ++counter, kTemporarySuffix);
}

bool IsTemporaryName(absl::string_view file_name) {
  return absl::StartsWith(file_name, kTemporaryPrefix) && absl::EndsWith(file_name, kTemporarySuffix);
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

}  // namespace refit
