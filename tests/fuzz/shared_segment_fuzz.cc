// Announcements of shared memory by strangers: what is mapped is what was announced, and all of it may be read; nothing
// else is opened, whatever kind of file it is.
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "common/net/shared_segment.h"
#include "refit/buffer.h"
#include "tests/fuzz/fuzz_check.h"
#include "tests/fuzz/fuzz_input.h"

namespace refit {
namespace {

// Files of this process that an announcement may name; all stay open.
struct Files {
  Files() {
    auto allocated = Buffer::Allocate(2 << 20, Backing::kShared);
    FUZZ_CHECK(allocated.ok()) << allocated.status().ToString();
    buffer = *allocated;
    const int unsealed = memfd_create("unsealed", MFD_CLOEXEC);
    FUZZ_CHECK(ftruncate(unsealed, 1 << 20) == 0);
    int ends[2];
    FUZZ_CHECK(pipe2(ends, O_CLOEXEC) == 0);
    fds = {buffer->shared_fd(),
           unsealed,
           ends[0],
           ends[1],
           eventfd(0, EFD_CLOEXEC),
           open("/", O_RDONLY | O_CLOEXEC),
           open("/dev/zero", O_RDONLY | O_CLOEXEC),
           open("/proc/self/exe", O_RDONLY | O_CLOEXEC)};
  }
  std::shared_ptr<Buffer> buffer;
  std::vector<int> fds;
};

v1::SharedSegment AnyAnnouncement(const Files& files, FuzzInput& input) {
  v1::SharedSegment announced = Announce(*files.buffer);
  if (input.Bool()) {
    const int fd = files.fds[input.Below(files.fds.size())];
    struct stat file = {};
    FUZZ_CHECK(fstat(fd, &file) == 0);
    announced.set_fd(fd);
    announced.set_device(file.st_dev);
    announced.set_inode(file.st_ino);
  }
  switch (input.Below(4)) {
    case 0:
      announced.set_bytes(input.Integer<uint64_t>());
      break;
    case 1:
      announced.set_bytes(input.Integer<uint32_t>() % (3 << 20));
      break;
    default:
      break;
  }
  // Merged on top: whatever protobuf reads.
  v1::SharedSegment stranger;
  if (stranger.ParseFromString(input.Rest())) announced.MergeFrom(stranger);
  return announced;
}

}  // namespace
}  // namespace refit

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const refit::Files files;
  refit::FuzzInput input(data, size);
  const refit::v1::SharedSegment announced = refit::AnyAnnouncement(files, input);
  const auto opened = refit::MappedSegment::Open(announced);
  if (!opened.ok()) {
    FUZZ_CHECK(absl::IsUnavailable(opened.status())) << opened.status().ToString();
    FUZZ_CHECK(!opened.status().message().empty());
    return 0;
  }
  FUZZ_CHECK(announced.inode() == refit::Announce(*files.buffer).inode()) << announced.ShortDebugString();
  FUZZ_CHECK((*opened)->span().size() == announced.bytes());
  FUZZ_CHECK(announced.bytes() <= files.buffer->size());
  FUZZ_CHECK((*opened)->Is(announced));
  // As the buffer is.
  FUZZ_CHECK((*opened)->span().front() == std::byte{0} && (*opened)->span().back() == std::byte{0});
  return 0;
}
