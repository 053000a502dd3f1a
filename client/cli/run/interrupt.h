// Handles Ctrl-C and SIGTERM, so that a command ends in good order.
#pragma once

#include <atomic>
#include <functional>
#include <mutex>

#include "absl/status/status.h"
#include "common/process/end_signals.h"

namespace refit::cli {

// During its life, the first SIGINT or SIGTERM is recorded instead of killing the process. The second one ends the
// process at once. When to create it, and what happens to ignored signals: see EndSignals. One at a time.
class Interrupt {
 public:
  Interrupt();

  bool raised() const { return raised_; }

  // The status to report: CANCELLED if a signal came, `status` otherwise.
  absl::Status Explain(const absl::Status& status, absl::string_view consequence) const;

  // Sets a function that another thread runs when the signal comes. If it came already, it runs here. Null removes it,
  // and waits for it if it is running.
  void SetReaction(std::function<void()> reaction);

 private:
  void Note();

  std::atomic<bool> raised_{false};
  std::mutex mutex_;
  std::function<void()> reaction_;
  EndSignals signals_;  // last member: its thread uses the others
};

}  // namespace refit::cli
