// Handles Ctrl-C and SIGTERM, so that a command ends in good order.
#pragma once

#include <atomic>
#include <csignal>
#include <functional>
#include <mutex>
#include <thread>

#include "absl/status/status.h"

namespace refit::cli {

// During its life, the first SIGINT or SIGTERM is recorded instead of killing the process. The second one ends the
// process at once. A signal that was ignored before stays ignored. Create it before threads of ours start; threads that
// libraries make while they are loaded (OpenBLAS does) may be there. One at a time.
class Interrupt {
 public:
  Interrupt();
  ~Interrupt();
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;

  bool raised() const { return raised_; }

  // The status to report: CANCELLED if a signal came, `status` otherwise.
  absl::Status Explain(const absl::Status& status, absl::string_view consequence) const;

  // Sets a function that another thread runs when the signal comes. If it came already, it runs here. Null removes it,
  // and waits for it if it is running.
  void SetReaction(std::function<void()> reaction);

 private:
  void Listen();

  std::atomic<bool> raised_{false};
  std::mutex mutex_;
  std::function<void()> reaction_;
  const sigset_t set_;
  int signals_;
  int caught_;
  int stop_;
  std::thread thread_;
};

}  // namespace refit::cli
