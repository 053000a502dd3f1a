// Ctrl-C and SIGTERM as an orderly end.
#pragma once

#include <atomic>
#include <functional>
#include <mutex>
#include <thread>

#include "absl/status/status.h"

namespace refit::cli {

// While it lives, the first SIGINT or SIGTERM (unless it was ignored before) is noted and reported instead of killing
// the process; a second one ends it at once. Make it before any other thread starts.
class Interrupt {
 public:
  Interrupt();
  ~Interrupt();
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;

  bool raised() const { return raised_; }

  // CANCELLED if raised, `status` otherwise: what a command that may have been interrupted reports.
  absl::Status Explain(const absl::Status& status, absl::string_view consequence) const;

  // Runs `reaction` from another thread when the signal comes, or here if it came already. Null: no reaction any more;
  // one that runs is waited for.
  void SetReaction(std::function<void()> reaction);

 private:
  void Listen();

  std::atomic<bool> raised_{false};
  std::mutex mutex_;
  std::function<void()> reaction_;
  int signals_;
  int stop_;
  std::thread thread_;
};

}  // namespace refit::cli
