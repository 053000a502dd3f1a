#include "client/cli/run/interrupt.h"

#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdint>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/cli/run/exit_code.h"

namespace refit::cli {
namespace {

// SIGINT and SIGTERM, without those that our parent process set to be ignored, as a shell does for background jobs.
// Blocking an ignored signal would make it arrive all the same.
sigset_t TerminationSignals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : {SIGINT, SIGTERM}) {
    struct sigaction action;
    if (sigaction(signal, nullptr, &action) == 0 && action.sa_handler != SIG_IGN) sigaddset(&set, signal);
  }
  return set;
}

// Where a signal is noted that came to a thread which does not block it.
std::atomic<int> caught_fd{-1};

void Catch(int /*signal*/) {
  const int saved = errno;
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(caught_fd, &one, sizeof one);
  errno = saved;
}

void SetActions(const sigset_t& set, void (*handler)(int)) {
  struct sigaction action = {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  for (const int signal : {SIGINT, SIGTERM}) {
    if (sigismember(&set, signal) == 1) sigaction(signal, &action, nullptr);
  }
}

}  // namespace

Interrupt::Interrupt() : set_(TerminationSignals()) {
  pthread_sigmask(SIG_BLOCK, &set_, nullptr);
  signals_ = signalfd(-1, &set_, SFD_CLOEXEC);
  caught_ = eventfd(0, EFD_CLOEXEC);
  stop_ = eventfd(0, EFD_CLOEXEC);
  caught_fd = caught_;
  SetActions(set_, Catch);
  thread_ = std::thread([this] { Listen(); });
}

Interrupt::~Interrupt() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(stop_, &one, sizeof one);  // writing to an eventfd does not fail here
  thread_.join();
  SetActions(set_, SIG_DFL);
  caught_fd = -1;
  close(stop_);
  close(caught_);
  close(signals_);
  pthread_sigmask(SIG_UNBLOCK, &set_, nullptr);
}

void Interrupt::Listen() {
  pollfd wanted[] = {{stop_, POLLIN, 0}, {signals_, POLLIN, 0}, {caught_, POLLIN, 0}};
  while (true) {
    if (poll(wanted, 3, -1) < 0) continue;
    if (wanted[0].revents != 0) return;
    signalfd_siginfo info;
    uint64_t count = 0;
    const bool noted = wanted[1].revents != 0 ? read(signals_, &info, sizeof info) == sizeof info
                                              : read(caught_, &count, sizeof count) == sizeof count;
    if (!noted) continue;
    if (raised_.exchange(true)) std::_Exit(kExitInterrupted);
    const std::lock_guard<std::mutex> lock(mutex_);
    if (reaction_) reaction_();
  }
}

void Interrupt::SetReaction(std::function<void()> reaction) {
  const std::lock_guard<std::mutex> lock(mutex_);
  reaction_ = std::move(reaction);
  if (reaction_ && raised_) reaction_();
}

absl::Status Interrupt::Explain(const absl::Status& status, absl::string_view consequence) const {
  if (!raised_ || status.ok()) return status;
  return absl::CancelledError(absl::StrCat("interrupted; ", consequence));
}

}  // namespace refit::cli
