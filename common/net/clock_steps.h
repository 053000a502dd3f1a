// What a step of the wall clock does to gRPC, undone.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>

namespace refit {

// gRPC 1.51 counts by a steady clock, but its timers' thread sleeps until a time of day (Abseil's waits know no other):
// once the clock is set back by an hour, keepalive, deadlines and alarms come an hour late. Notices that within a
// fraction of a second, and has the thread look again. Where gRPC has no such thread any more, does nothing.
class ClockSteps {
 public:
  // The process's one, for as long as somebody holds it. gRPC has been started. Thread-safe.
  static std::shared_ptr<const ClockSteps> Watch();

  ClockSteps();
  ~ClockSteps();
  ClockSteps(const ClockSteps&) = delete;
  ClockSteps& operator=(const ClockSteps&) = delete;

 private:
  void Run();

  std::mutex mutex_;
  std::condition_variable ending_;
  bool ended_ = false;
  std::thread thread_;
};

}  // namespace refit
