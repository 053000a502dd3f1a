#include "common/net/shared_segment.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "common/limits/process_limits.h"

namespace refit {
namespace {

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
  if (static_cast<uint64_t>(found.st_size) < announced.bytes() || announced.bytes() == 0) {
    return absl::UnavailableError(
        absl::StrCat("it has ", found.st_size, " bytes, ", announced.bytes(), " were announced"));
  }
  return absl::OkStatus();
}

absl::Status CheckIsMine(const struct stat& found) {
  if (found.st_uid == geteuid()) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat("it belongs to user ", found.st_uid, ", not to ", geteuid()));
}

// Only memfds have seals. Without this seal, or with pages that must be reserved (hugetlbfs), a read could end the
// process.
absl::Status CheckIsAlwaysReadable(int fd) {
  const int seals = fcntl(fd, F_GET_SEALS);
  if (seals < 0 || (seals & F_SEAL_SHRINK) == 0) return absl::UnavailableError("it is not sealed against shrinking");
  struct statfs system = {};
  if (fstatfs(fd, &system) == 0 && system.f_type == TMPFS_MAGIC) return absl::OkStatus();
  return absl::UnavailableError("it is memory of another kind than a memfd's");
}

absl::StatusOr<std::byte*> Map(const FileDescriptor& file, const v1::SharedSegment& announced) {
  struct stat found = {};
  if (fstat(file.get(), &found) != 0) return Failed(std::strerror(errno), errno);
  if (absl::Status status = CheckIsAnnounced(found, announced); !status.ok()) return status;
  if (absl::Status status = CheckIsAlwaysReadable(file.get()); !status.ok()) return status;
  if (absl::Status status = CheckMappingsLeft(); !status.ok()) return status;
  void* data = mmap(nullptr, announced.bytes(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, file.get(), 0);
  if (data != MAP_FAILED) return static_cast<std::byte*>(data);
  const int error = errno;
  return Failed(WhyNotMapped(announced.bytes(), error), error);
}

absl::Status Annotated(const std::string& where, const absl::Status& status) {
  return {status.code(), absl::StrCat("shared memory ", where, ": ", status.message())};
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
  if (status.ok()) status = CheckIsMine(found);
  if (!status.ok()) return Annotated(path, status);
  const FileDescriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!file.valid()) {
    const int error = errno;
    return Annotated(path, Failed(WhyNotOpened(error), error));
  }
  const absl::StatusOr<std::byte*> data = Map(file, announced);
  if (!data.ok()) return Annotated(path, data.status());
  return absl::WrapUnique(new MappedSegment(*data, announced.bytes(), announced));
}

absl::StatusOr<std::shared_ptr<MappedSegment>> MappedSegment::Open(const v1::SharedSegment& announced,
                                                                   const DescriptorClient& descriptors) {
  absl::StatusOr<std::shared_ptr<MappedSegment>> seen = Open(announced);
  if (seen.ok() || absl::IsResourceExhausted(seen.status())) return seen;
  if (announced.key().empty() || !descriptors.has_path()) return seen;
  const absl::StatusOr<FileDescriptor> file = descriptors.Take(announced.key());
  absl::StatusOr<std::shared_ptr<MappedSegment>> passed =
      file.ok() ? OfDescriptor(*file, announced) : absl::StatusOr<std::shared_ptr<MappedSegment>>(file.status());
  if (passed.ok()) return passed;
  return absl::Status(passed.status().code(),
                      absl::StrCat(seen.status().message(), "; and ", passed.status().message()));
}

absl::StatusOr<std::shared_ptr<MappedSegment>> MappedSegment::OfDescriptor(const FileDescriptor& file,
                                                                           const v1::SharedSegment& announced) {
  const absl::StatusOr<std::byte*> data = Map(file, announced);
  if (!data.ok()) return Annotated("by its descriptor", data.status());
  return absl::WrapUnique(new MappedSegment(*data, announced.bytes(), announced));
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
