// Preloaded into a program (LD_PRELOAD), takes calls away from its file systems: those that the words of
// $POOR_FILE_SYSTEM name fail as they do on shares, FUSE and object-store mounts.
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

bool Lacks(const char* call) {
  const char* lacks = getenv("POOR_FILE_SYSTEM");
  return lacks != nullptr && strstr(lacks, call) != nullptr;
}

int Fail(int error) {
  errno = error;
  return -1;
}

template <typename Function>
Function* Real(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

bool IsTensorFile(int fd) {
  char link[64];
  char path[4096];
  (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  const ssize_t size = readlink(link, path, sizeof path - 1);
  constexpr char kSuffix[] = ".safetensors";
  constexpr ssize_t kSuffixSize = sizeof kSuffix - 1;
  return size > kSuffixSize && memcmp(path + size - kSuffixSize, kSuffix, kSuffixSize) == 0;
}

}  // namespace

extern "C" {

int open(const char* path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  const mode_t mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(rest, mode_t) : 0;
  va_end(rest);
  if ((flags & O_TMPFILE) == O_TMPFILE && Lacks("tmpfile")) return Fail(EOPNOTSUPP);
  return Real<int(const char*, int, ...)>("open")(path, flags, mode);
}

int linkat(int from_folder, const char* from, int to_folder, const char* to, int flags) {
  if (Lacks("linkat")) return Fail(EPERM);
  return Real<decltype(linkat)>("linkat")(from_folder, from, to_folder, to, flags);
}

int fsync(int fd) { return Lacks("fsync") ? Fail(EINVAL) : Real<decltype(fsync)>("fsync")(fd); }

int rename(const char* from, const char* to) {
  return Lacks("rename") ? Fail(ENOSYS) : Real<decltype(rename)>("rename")(from, to);
}

int flock(int fd, int operation) { return Lacks("flock") ? Fail(ENOSYS) : Real<int(int, int)>("flock")(fd, operation); }

int fchmod(int fd, mode_t mode) { return Lacks("fchmod") ? Fail(EPERM) : Real<int(int, mode_t)>("fchmod")(fd, mode); }

void* mmap(void* address, size_t size, int protection, int flags, int fd, off_t offset) {
  if (fd >= 0 && Lacks("mmap") && IsTensorFile(fd)) {
    errno = ENODEV;
    return MAP_FAILED;
  }
  return Real<decltype(mmap)>("mmap")(address, size, protection, flags, fd, offset);
}
}
