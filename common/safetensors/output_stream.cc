#include "common/safetensors/output_stream.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <ctime>
#include <new>

#include "absl/strings/str_cat.h"
#include "refit/tensor_spec.h"

namespace refit {
namespace {

// As write(2), but a pipe without a reader gives EPIPE without a SIGPIPE.
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

}  // namespace

absl::StatusOr<std::unique_ptr<OutputFile>> OutputStream::Open(const OutputTarget& target) {
  const std::string name = target.path.string();
  const bool is_own = target.kind == OutputTarget::Kind::kDescriptor;
  // Opening a pipe without a reader would block for ever, so it is opened non-blocking.
  FileDescriptor file(is_own ? fcntl(target.descriptor, F_DUPFD_CLOEXEC, 0)
                             : open(name.c_str(), O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  if (!file.valid() && errno == ENXIO) {
    return absl::FailedPreconditionError(
        absl::StrCat("cannot write ", Printable(name), ": nobody reads it; start its reader first"));
  }
  if (!file.valid()) return FileError(errno, "open", name);
  return std::unique_ptr<OutputFile>(new OutputStream(name, std::move(file)));
}

absl::Status OutputStream::WriteAt(uint64_t position, absl::Span<const std::byte> bytes) try {
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

absl::Status OutputStream::Write(absl::Span<const std::byte> bytes) {
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

}  // namespace refit
