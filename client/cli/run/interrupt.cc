#include "client/cli/run/interrupt.h"

#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

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

}  // namespace

Interrupt::Interrupt() {
  const sigset_t set = TerminationSignals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  signals_ = signalfd(-1, &set, SFD_CLOEXEC);
  stop_ = eventfd(0, EFD_CLOEXEC);
  thread_ = std::thread([this] { Listen(); });
}

Interrupt::~Interrupt() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(stop_, &one, sizeof one);  // writing to an eventfd does not fail here
  thread_.join();
  close(stop_);
  close(signals_);
  const sigset_t set = TerminationSignals();
  pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
}

void Interrupt::Listen() {
  pollfd wanted[] = {{signals_, POLLIN, 0}, {stop_, POLLIN, 0}};
  while (true) {
    if (poll(wanted, 2, -1) < 0) continue;
    if (wanted[1].revents != 0) return;
    signalfd_siginfo info;
    if (read(signals_, &info, sizeof info) != sizeof info) continue;
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
