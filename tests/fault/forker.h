// A process that forks on a signal, while its other threads continue.
#pragma once

#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdlib>
#include <functional>
#include <thread>

#include "tests/fault/peer_log.h"

namespace refit {

// Create it before any other thread. On SIGUSR1 it forks; the child uses, drops or ignores what it inherited, by turns.
class Forker {
 public:
  struct Inherited {
    std::function<bool()> use;  // returns whether it was refused
    std::function<void()> drop;
  };

  explicit Forker(const PeerLog& log) : log_(log) {
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &signals, nullptr);
    thread_ = std::thread([this, signals] {
      int signal = 0;
      while (sigwait(&signals, &signal) == 0 && !stopping_) ForkOnce();
    });
  }
  ~Forker() {
    stopping_ = true;
    pthread_kill(thread_.native_handle(), SIGUSR1);
    thread_.join();
  }
  Forker(const Forker&) = delete;
  Forker& operator=(const Forker&) = delete;

  Inherited inherited;  // set before the first signal comes

 private:
  static constexpr unsigned kMostSeconds = 20;

  void ForkOnce() {
    ++forks_;
    const pid_t child = fork();
    if (child == 0) BeChild();
    int status = 0;
    waitpid(child, &status, 0);
    // A child that hangs is ended by SIGALRM.
    if (status != 0)
      log_.Write("bad-fork", static_cast<uint64_t>(WIFSIGNALED(status) ? 1000 + WTERMSIG(status) : forks_ % 3));
    log_.Write("forked", forks_);
  }

  [[noreturn]] void BeChild() const {
    alarm(kMostSeconds);
    switch (forks_ % 3) {
      case 0:
        std::_Exit(inherited.use() ? 0 : 1);
      case 1:
        inherited.drop();
        std::_Exit(0);
      default:
        std::exit(0);  // ends with all destructors and exit handlers
    }
  }

  const PeerLog& log_;
  uint64_t forks_ = 0;
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

}  // namespace refit
