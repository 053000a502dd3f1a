#include "common/process/line_writer.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <climits>
#include <condition_variable>
#include <csignal>
#include <deque>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace refit {
namespace {

using Clock = std::chrono::steady_clock;

// The file to write to: the caller's descriptor, or the same file opened again, so that non-blocking mode affects only
// us.
class Destination {
 public:
  explicit Destination(int fd) : fd_(fd) {}
  ~Destination() { CloseOwn(); }
  Destination(const Destination&) = delete;
  Destination& operator=(const Destination&) = delete;

  // As write(2), but fails with EAGAIN where that would block.
  ssize_t Write(absl::string_view bytes) {
    if (!Look()) return -1;
    if (S_ISSOCK(file_.st_mode)) return send(fd_, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (own_ >= 0 || S_ISREG(file_.st_mode)) return write(fd(), bytes.data(), bytes.size());
    // If poll says that there is room, there is room for PIPE_BUF bytes, unless another writer is faster.
    pollfd ready = {fd_, POLLOUT, 0};
    if (poll(&ready, 1, 0) == 0) return Fail(EAGAIN);
    return write(fd_, bytes.data(), std::min<size_t>(bytes.size(), PIPE_BUF));
  }

  int fd() const { return own_ >= 0 ? own_ : fd_; }

 private:
  static ssize_t Fail(int error) {
    errno = error;
    return -1;
  }

  // Checks whether the caller has put another file in the descriptor's place.
  bool Look() {
    struct stat now = {};
    if (fstat(fd_, &now) != 0) return false;
    const bool same = now.st_dev == file_.st_dev && now.st_ino == file_.st_ino && now.st_mode == file_.st_mode;
    if (same) return true;
    file_ = now;
    CloseOwn();
    // Not opened again: other files would start at offset 0, and writing to them does not block.
    if (!S_ISFIFO(now.st_mode) && isatty(fd_) == 0) return true;
    own_ = open(absl::StrCat("/proc/self/fd/", fd_).c_str(), O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    return true;
  }

  void CloseOwn() {
    if (own_ >= 0) close(own_);
    own_ = -1;
  }

  const int fd_;
  struct stat file_ = {};
  int own_ = -1;
};

void BlockSignals() {
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, nullptr);  // a SIGPIPE goes to this thread only, and stays blocked
}

}  // namespace

class LineWriter::State {
 public:
  State(int fd, OfDropped of_dropped, size_t max_queued_bytes)
      : of_dropped_(std::move(of_dropped)),
        max_queued_bytes_(max_queued_bytes),
        destination_(fd),
        closing_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
        thread_([this] { Run(); }) {}

  // Call it once the thread has ended.
  ~State() {
    Join();
    if (closing_ >= 0) close(closing_);
  }

  void Add(std::string line) {
    const std::lock_guard lock(mutex_);
    if (deadline_.has_value() || queued_bytes_ + line.size() > max_queued_bytes_) {
      ++dropped_;
      ++missing_;
      return;
    }
    queued_bytes_ += line.size();
    lines_.push_back({std::move(line), std::exchange(missing_, 0)});
    changed_.notify_all();
  }

  // False if the thread is still blocked, for example by a file system that does not answer.
  bool End(std::chrono::milliseconds patience) {
    {
      std::unique_lock lock(mutex_);
      deadline_ = Clock::now() + patience;
      changed_.notify_all();
      if (closing_ >= 0) (void)eventfd_write(closing_, 1);
      if (!changed_.wait_for(lock, patience + kMargin, [this] { return ended_; })) return false;
    }
    Join();
    return true;
  }

  uint64_t dropped() const { return dropped_; }
  bool reader_gone() const { return reader_gone_; }

 private:
  static constexpr std::chrono::milliseconds kMargin{200};

  struct Line {
    std::string text;
    uint64_t missing = 0;  // lines dropped between the previous line and this one
  };

  // Call it once the thread has ended. Close calls it too, so that a writer that is never destroyed leaves no thread
  // behind.
  void Join() {
    std::call_once(joined_, [this] { thread_.join(); });
  }

  void Run() {
    BlockSignals();
    while (const std::optional<Line> line = Next()) WriteLine(*line);
    const std::lock_guard lock(mutex_);
    ended_ = true;
    changed_.notify_all();
  }

  std::optional<Line> Next() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return deadline_.has_value() || !lines_.empty(); });
    if (lines_.empty()) return std::nullopt;
    Line line = std::move(lines_.front());
    lines_.pop_front();
    queued_bytes_ -= line.text.size();
    return line;
  }

  void WriteLine(const Line& line) {
    const uint64_t missing = lost_ + line.missing;
    std::string text = within_line_ ? "\n" : "";
    if (missing > 0) absl::StrAppend(&text, of_dropped_(missing), "\n");
    absl::StrAppend(&text, line.text, "\n");
    const bool written = WriteAll(text);
    if (!written) ++dropped_;
    lost_ = written ? 0 : missing + 1;
  }

  bool WriteAll(absl::string_view text) {
    while (!text.empty()) {
      const ssize_t written = destination_.Write(text);
      if (written > 0) {
        text.remove_prefix(static_cast<size_t>(written));
        within_line_ = !text.empty();
      } else if (written < 0 && errno == EINTR) {
        continue;
      } else if (written == 0 || (errno != EAGAIN && errno != EWOULDBLOCK)) {
        if (written < 0 && (errno == EPIPE || errno == ECONNRESET)) reader_gone_ = true;
        return false;
      } else if (!AwaitRoom()) {
        return false;
      }
    }
    return true;
  }

  // False when the deadline has passed.
  bool AwaitRoom() {
    std::optional<Clock::time_point> deadline;
    {
      const std::lock_guard lock(mutex_);
      deadline = deadline_;
    }
    int timeout = -1;
    if (deadline.has_value()) {
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(*deadline - Clock::now()).count();
      if (left <= 0) return false;
      timeout = static_cast<int>(left);
    }
    // Once closing has begun, only the deadline ends the wait.
    pollfd waits[] = {{destination_.fd(), POLLOUT, 0}, {deadline.has_value() ? -1 : closing_, POLLIN, 0}};
    poll(waits, 2, timeout);
    return true;
  }

  const OfDropped of_dropped_;
  const size_t max_queued_bytes_;
  Destination destination_;  // used by the thread only, as are the next two
  bool within_line_ = false;
  uint64_t lost_ = 0;  // lines lost since the last one that was written
  const int closing_;
  std::atomic<uint64_t> dropped_{0};
  std::atomic<bool> reader_gone_{false};

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Line> lines_;
  size_t queued_bytes_ = 0;
  uint64_t missing_ = 0;                       // lines dropped since the last one was queued
  std::optional<Clock::time_point> deadline_;  // set when the writer is to end
  bool ended_ = false;
  std::once_flag joined_;
  std::thread thread_;  // last member: it uses all the others
};

LineWriter::LineWriter(int fd, OfDropped of_dropped, size_t max_queued_bytes)
    : state_(MakeOwnedByProcess<State>(fd, std::move(of_dropped), max_queued_bytes)) {}

LineWriter::~LineWriter() {
  // A blocked thread still uses the state, and nothing but the end of the process ends that wait. So the state is
  // leaked.
  if (!Close()) (void)state_.release();
}

void LineWriter::Write(std::string line) {
  if (!state_.get_deleter().guard.forked()) state_->Add(std::move(line));
}

bool LineWriter::Close(std::chrono::milliseconds patience) {
  return state_.get_deleter().guard.forked() || state_->End(patience);
}

uint64_t LineWriter::dropped() const { return state_->dropped(); }

bool LineWriter::reader_gone() const { return state_->reader_gone(); }

}  // namespace refit
