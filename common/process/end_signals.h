// SIGINT and SIGTERM, which ask the process to end.
#pragma once

#include <csignal>
#include <functional>
#include <thread>

namespace refit {

// During its life, these signals do not end the process: a thread of this object calls a function for each. A signal
// that was ignored before stays ignored. Create it before threads of ours start; threads that libraries make while they
// are loaded (OpenBLAS does) may be there. One at a time in a process.
class EndSignals {
 public:
  // `on_signal` gets the signal's number. It is called for one signal at a time.
  explicit EndSignals(std::function<void(int)> on_signal);
  // Waits for `on_signal` if it is running. From then on, the signals end the process again.
  ~EndSignals();
  EndSignals(const EndSignals&) = delete;
  EndSignals& operator=(const EndSignals&) = delete;

 private:
  void Listen();

  const std::function<void(int)> on_signal_;
  const sigset_t set_;
  int signals_;
  int caught_[2];  // a pipe: a byte for each signal that came to a thread which does not block it
  int stop_;
  std::thread thread_;
};

}  // namespace refit
