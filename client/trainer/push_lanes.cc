#include "client/trainer/push_lanes.h"

#include <chrono>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"

namespace refit {
namespace {

// If one connection fails, the service aborts the others. How long the cause may come after that.
constexpr std::chrono::seconds kCausePatience{1};

}  // namespace

PushLanes::PushLanes(size_t lanes, OnWaiting on_waiting) : on_waiting_(std::move(on_waiting)), lanes_(lanes) {}

absl::Status PushLanes::Start() {
  try {
    for (Lane& lane : lanes_) lane.thread = std::thread([this, &lane] { Work(lane); });
  } catch (const std::system_error& error) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no thread for each of ", lanes_.size(), " connections: ", error.what()));
  }
  return absl::OkStatus();
}

PushLanes::~PushLanes() {
  Clear();
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
  }
  changed_.notify_all();
  for (Lane& lane : lanes_) {
    if (lane.thread.joinable()) lane.thread.join();
  }
}

void PushLanes::Add(size_t lane, std::function<absl::Status()> task, uint64_t bytes) {
  {
    const std::lock_guard lock(mutex_);
    lanes_[lane].tasks.push_back({std::move(task), bytes});
    ++tasks_;
    bytes_ += bytes;
  }
  changed_.notify_all();
}

void PushLanes::Clear() {
  std::deque<Task> dropped;  // destroyed with no lock held
  const std::lock_guard lock(mutex_);
  for (Lane& lane : lanes_) {
    for (Task& task : lane.tasks) {
      --tasks_;
      bytes_ -= task.bytes;
      dropped.push_back(std::move(task));
    }
    lane.tasks.clear();
  }
  error_ = absl::OkStatus();
}

absl::Status PushLanes::AwaitAtMost(uint64_t bytes) {
  return Await([this, bytes] { return bytes_ <= bytes; });
}

absl::Status PushLanes::AwaitAll() {
  return Await([this] { return tasks_ == 0; });
}

void PushLanes::AwaitIdle() {
  std::unique_lock lock(mutex_);
  Wait(lock, [this] { return running_ == 0; });
}

// Passes notices on meanwhile.
void PushLanes::Wait(std::unique_lock<std::mutex>& lock, const std::function<bool()>& is_over) {
  while (true) {
    changed_.wait(lock, [&] { return notice_.has_value() || is_over(); });
    const std::optional<std::vector<uint32_t>> notice = std::exchange(notice_, std::nullopt);
    if (!notice.has_value()) return;
    lock.unlock();
    if (on_waiting_) on_waiting_(*notice);
    lock.lock();
  }
}

absl::Status PushLanes::Await(const std::function<bool()>& is_over) {
  std::unique_lock lock(mutex_);
  Wait(lock, [&] { return !error_.ok() || is_over(); });
  if (absl::IsAborted(error_)) {
    changed_.wait_for(lock, kCausePatience, [this] { return running_ == 0 || !absl::IsAborted(error_); });
  }
  return error_;
}

void PushLanes::Notice(absl::Span<const uint32_t> missing) {
  {
    const std::lock_guard lock(mutex_);
    notice_.emplace(missing.begin(), missing.end());
  }
  changed_.notify_all();
}

void PushLanes::Note(const absl::Status& status) {
  if (error_.ok() || (absl::IsAborted(error_) && !status.ok())) error_ = status;
}

void PushLanes::Work(Lane& lane) {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return closed_ || (error_.ok() && !lane.tasks.empty()); });
    if (closed_) return;
    Task task = std::move(lane.tasks.front());
    lane.tasks.pop_front();
    ++running_;
    lock.unlock();
    const absl::Status status = task.run();
    task.run = nullptr;  // lets go of what it owns
    lock.lock();
    --running_;
    --tasks_;
    bytes_ -= task.bytes;
    Note(status);
    changed_.notify_all();
  }
}

}  // namespace refit
