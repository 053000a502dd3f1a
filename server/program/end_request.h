// A signal that asks the program to end.
#pragma once

#include <condition_variable>
#include <mutex>

#include "common/process/end_signals.h"
#include "refit/event_log.h"

namespace refit {

// Create it before the service starts.
class EndRequest {
 public:
  // Until Await is called, SIGINT and SIGTERM end the program at once, with exit code 0 and a line in the log: a start
  // may take long, as on a slow disk, or where a file is a pipe that nobody writes to. It leaves nothing to put in
  // order.
  explicit EndRequest(EventLog log);

  // Waits for such a signal, and returns its number. Later ones change nothing.
  int Await();

 private:
  void Note(int signal);

  const EventLog log_;
  std::mutex mutex_;
  std::condition_variable noted_;
  bool awaited_ = false;
  int signal_ = 0;
  EndSignals signals_;  // last member: its thread uses the others
};

// "SIGTERM"
const char* SignalName(int signal);

}  // namespace refit
