#include "common/net/shared_segment.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "common/limits/process_limits.h"

namespace refit {
namespace {

class File {
 public:
  explicit File(int fd) : fd_(fd) {}
  ~File() {
    if (fd_ >= 0) close(fd_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  int get() const { return fd_; }

 private:
  const int fd_;
};

// The error of the system call that has just failed. RESOURCE_EXHAUSTED if a limit of the process or the system was
// reached.
absl::Status Failed(const std::string& why, int error) {
  const bool by_limit = error == EMFILE || error == ENFILE || error == ENOMEM;
  return {by_limit ? absl::StatusCode::kResourceExhausted : absl::StatusCode::kUnavailable, why};
}

absl::Status CheckIsAnnounced(const struct stat& found, const v1::SharedSegment& announced) {
  if (found.st_dev != announced.device() || found.st_ino != announced.inode()) {
    return absl::UnavailableError("it is another file: the processes may not see each other's");
  }
  if (found.st_uid != geteuid()) {
    return absl::UnavailableError(absl::StrCat("it belongs to user ", found.st_uid, ", not to ", geteuid()));
  }
  if (static_cast<uint64_t>(found.st_size) < announced.bytes() || announced.bytes() == 0) {
    return absl::UnavailableError(
        absl::StrCat("it has ", found.st_size, " bytes, ", announced.bytes(), " were announced"));
  }
  return absl::OkStatus();
}

// Only memfds have seals. Without this seal, a read could end the process.
absl::Status CheckNeverShrinks(int fd) {
  const int seals = fcntl(fd, F_GET_SEALS);
  if (seals < 0 || (seals & F_SEAL_SHRINK) == 0) return absl::UnavailableError("it is not sealed against shrinking");
  return absl::OkStatus();
}

}  // namespace

v1::SharedSegment Announce(const Buffer& buffer) {
  v1::SharedSegment segment;
  struct stat file = {};
  if (buffer.shared_fd() < 0 || fstat(buffer.shared_fd(), &file) != 0) return segment;
  segment.set_pid(getpid());
  segment.set_fd(buffer.shared_fd());
  segment.set_device(file.st_dev);
  segment.set_inode(file.st_ino);
  segment.set_bytes(buffer.shared().bytes);
  return segment;
}

absl::StatusOr<std::shared_ptr<MappedSegment>> MappedSegment::Open(const v1::SharedSegment& announced) {
  const std::string path = absl::StrCat("/proc/", announced.pid(), "/fd/", announced.fd());
  // Checked before it is opened, because opening some files has side effects.
  struct stat found = {};
  absl::Status status = stat(path.c_str(), &found) == 0 ? CheckIsAnnounced(found, announced)
                                                        : absl::UnavailableError(std::strerror(errno));
  const File file(status.ok() ? open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK) : -1);
  if (status.ok() && (file.get() < 0 || fstat(file.get(), &found) != 0)) {
    const int error = errno;
    status = Failed(WhyNotOpened(error), error);
  }
  if (status.ok()) status = CheckIsAnnounced(found, announced);
  if (status.ok()) status = CheckNeverShrinks(file.get());
  if (status.ok()) status = CheckMappingsLeft();
  void* data = MAP_FAILED;
  if (status.ok()) {
    data = mmap(nullptr, announced.bytes(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, file.get(), 0);
    if (data == MAP_FAILED) {
      const int error = errno;
      status = Failed(WhyNotMapped(announced.bytes(), error), error);
    }
  }
  if (!status.ok()) return absl::Status(status.code(), absl::StrCat("shared memory ", path, ": ", status.message()));
  return absl::WrapUnique(new MappedSegment(static_cast<std::byte*>(data), announced.bytes(), announced));
}

MappedSegment::MappedSegment(std::byte* data, size_t size, v1::SharedSegment announced)
    : data_(data), size_(size), announced_(std::move(announced)) {}

MappedSegment::~MappedSegment() { munmap(data_, size_); }

bool MappedSegment::Is(const v1::SharedSegment& announced) const {
  return announced_.inode() == announced.inode() && announced_.device() == announced.device() &&
         announced_.pid() == announced.pid() && announced_.fd() == announced.fd() &&
         announced_.bytes() == announced.bytes();
}

}  // namespace refit
