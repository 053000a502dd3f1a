// Threads that push over several connections, one each.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"

namespace refit {

// A lane does its tasks in order, and lanes work at a time. After the first error no further task begins. Everything
// but Notice is called from one thread at a time.
class PushLanes {
 public:
  using OnWaiting = std::function<void(absl::Span<const uint32_t> missing)>;

  // `on_waiting`, which may be null, is called from Await only.
  PushLanes(size_t lanes, OnWaiting on_waiting);
  // Starts the threads. RESOURCE_EXHAUSTED if the process may not have so many.
  absl::Status Start();
  // Drops what has not begun, and waits for what has.
  ~PushLanes();
  PushLanes(const PushLanes&) = delete;
  PushLanes& operator=(const PushLanes&) = delete;

  size_t size() const { return lanes_.size(); }

  // Gives a lane a task, which stands for so many bytes.
  void Add(size_t lane, std::function<absl::Status()> task, uint64_t bytes = 0);
  // Drops all tasks that have not begun, and forgets the error.
  void Clear();

  // Waits until no task runs, whatever comes of them.
  void AwaitIdle();
  // Wait until tasks of at most `bytes` are left, or none. The error of a task, if there was one: the cause, as far as
  // it is known, and not that other lanes were aborted for it.
  absl::Status AwaitAtMost(uint64_t bytes);
  absl::Status AwaitAll();

  // A task waits for other ranks, or for workers. Thread-safe.
  void Notice(absl::Span<const uint32_t> missing);

 private:
  struct Task {
    std::function<absl::Status()> run;
    uint64_t bytes = 0;
  };
  struct Lane {
    std::deque<Task> tasks;
    std::thread thread;
  };

  void Work(Lane& lane);
  void Wait(std::unique_lock<std::mutex>& lock, const std::function<bool()>& is_over);
  absl::Status Await(const std::function<bool()>& is_over);
  void Note(const absl::Status& status);

  const OnWaiting on_waiting_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Lane> lanes_;  // guarded by mutex_, as are all members below
  size_t tasks_ = 0;         // queued or running
  size_t running_ = 0;
  uint64_t bytes_ = 0;
  absl::Status error_;
  bool closed_ = false;
  std::optional<std::vector<uint32_t>> notice_;
};

}  // namespace refit
