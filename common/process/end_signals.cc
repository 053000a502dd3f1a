#include "common/process/end_signals.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <utility>

namespace refit {
namespace {

// SIGINT and SIGTERM, without those that our parent process set to be ignored, as a shell does for background jobs.
// Blocking an ignored signal would make it arrive all the same.
sigset_t NotIgnored() {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : {SIGINT, SIGTERM}) {
    struct sigaction action;
    if (sigaction(signal, nullptr, &action) == 0 && action.sa_handler != SIG_IGN) sigaddset(&set, signal);
  }
  return set;
}

// Where a handler writes.
std::atomic<int> caught_fd{-1};

void Catch(int signal) {
  const int saved = errno;
  const auto number = static_cast<uint8_t>(signal);
  [[maybe_unused]] const ssize_t written = write(caught_fd, &number, sizeof number);
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

// 0 if there is none.
int ReadSignal(int signals) {
  signalfd_siginfo info;
  return read(signals, &info, sizeof info) == sizeof info ? static_cast<int>(info.ssi_signo) : 0;
}

int ReadCaught(int pipe) {
  uint8_t number = 0;
  return read(pipe, &number, sizeof number) == sizeof number ? number : 0;
}

}  // namespace

EndSignals::EndSignals(std::function<void(int)> on_signal) : on_signal_(std::move(on_signal)), set_(NotIgnored()) {
  pthread_sigmask(SIG_BLOCK, &set_, nullptr);
  signals_ = signalfd(-1, &set_, SFD_CLOEXEC);
  if (pipe2(caught_, O_CLOEXEC) != 0) caught_[0] = caught_[1] = -1;
  stop_ = eventfd(0, EFD_CLOEXEC);
  caught_fd = caught_[1];
  SetActions(set_, Catch);
  thread_ = std::thread([this] { Listen(); });
}

EndSignals::~EndSignals() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(stop_, &one, sizeof one);  // writing to an eventfd does not fail here
  thread_.join();
  SetActions(set_, SIG_DFL);
  caught_fd = -1;
  for (const int descriptor : {stop_, caught_[0], caught_[1], signals_}) close(descriptor);
  pthread_sigmask(SIG_UNBLOCK, &set_, nullptr);
}

void EndSignals::Listen() {
  pollfd wanted[] = {{stop_, POLLIN, 0}, {signals_, POLLIN, 0}, {caught_[0], POLLIN, 0}};
  while (true) {
    if (poll(wanted, 3, -1) < 0) continue;
    if (wanted[0].revents != 0) return;
    const int signal = wanted[1].revents != 0 ? ReadSignal(signals_) : ReadCaught(caught_[0]);
    if (signal != 0) on_signal_(signal);
  }
}

}  // namespace refit
