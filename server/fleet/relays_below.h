// The relays that attend at this service, and the workers that they report.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "refit/v1/relay.pb.h"

namespace refit {

// Most workers below a service, of all its relays together: so that what relays claim stays bounded.
inline constexpr uint64_t kMaxWorkersBelow = 100'000;

// Thread-safe. A relay that went away is remembered for an hour with its workers, which count as gone.
class RelaysBelow {
 public:
  // `on_change` is called with no lock held.
  explicit RelaysBelow(std::function<void()> on_change) : on_change_(std::move(on_change)) {}

  // A relay's presence, until destroyed.
  class Attendance {
   public:
    Attendance(RelaysBelow& relays, uint64_t life) : relays_(relays), life_(life) {}
    ~Attendance();
    Attendance(const Attendance&) = delete;
    Attendance& operator=(const Attendance&) = delete;

   private:
    RelaysBelow& relays_;
    const uint64_t life_;
  };
  // INVALID_ARGUMENT without name or life; ALREADY_EXISTS if that life attends.
  absl::StatusOr<std::unique_ptr<Attendance>> Attend(const v1::AttendRequest& request) ABSL_LOCKS_EXCLUDED(mutex_);

  // FAILED_PRECONDITION if that life does not attend; RESOURCE_EXHAUSTED for too many workers: the report before stays.
  absl::Status Report(const v1::ReportBelowRequest& report) ABSL_LOCKS_EXCLUDED(mutex_);

  // The workers below, of one model or of all if it is empty, with `via` from here on.
  std::vector<v1::Worker> List(const std::string& model) const ABSL_LOCKS_EXCLUDED(mutex_);
  // If the worker is a relay that attends here, or did, says so, and how it is.
  void Describe(v1::Worker& worker) const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  using Clock = std::chrono::steady_clock;

  struct Relay {
    std::string name;
    bool attends = true;
    Clock::time_point left;
    v1::RelayStatus status;
    std::vector<v1::Worker> workers;  // as last reported
    std::vector<v1::Worker> coming;   // of a report of which more follows
  };

  absl::Status Add(const v1::ReportBelowRequest& report) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Leave(uint64_t life) ABSL_LOCKS_EXCLUDED(mutex_);
  void Forget(const std::string& name) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  uint64_t CountWithout(uint64_t life) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::function<void()> on_change_;

  mutable absl::Mutex mutex_;
  std::map<uint64_t, Relay> relays_ ABSL_GUARDED_BY(mutex_);  // by life
};

}  // namespace refit
