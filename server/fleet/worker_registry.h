// Who pulls what: the fleet as the service sees it.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "common/net/version_key.h"
#include "refit/limits.h"
#include "refit/v1/inspect.pb.h"
#include "refit/v1/pull.pb.h"

namespace refit {

// One life of a worker: names are for people, and two processes may have the same.
struct WorkerId {
  std::string model;
  std::string name;
  uint64_t life = 0;  // 0: it sent none, and is told by its name alone

  friend bool operator<(const WorkerId& a, const WorkerId& b) {
    return std::tie(a.model, a.name, a.life) < std::tie(b.model, b.name, b.life);
  }
};

// Thread-safe. One is forgotten an hour after its last call, the longest silent first when there are too many; of those
// of one name that are gone, all but the last.
class WorkerRegistry {
  struct Entry {
    v1::Worker worker;
    int pulls = 0;  // under way
    int watches = 0;
    bool connected() const { return pulls + watches > 0; }
    std::chrono::steady_clock::time_point last_call;
    std::chrono::steady_clock::time_point pull_began;
  };

 public:
  // So many that a list of them fits into one message, however long their names and errors.

  explicit WorkerRegistry(uint32_t max_workers = kMaxWorkers) : max_workers_(max_workers) {}

  // RESOURCE_EXHAUSTED if this one is not known, and none of those that are can be forgotten: all pull or watch.
  absl::Status CheckRoom(const WorkerId& id) ABSL_LOCKS_EXCLUDED(mutex_);

  // One pull of one worker; reports itself as failed if destroyed before Complete or Fail.
  class Pull {
   public:
    Pull(WorkerRegistry& registry, std::shared_ptr<Entry> entry);
    ~Pull();
    void Sent(uint64_t bytes);
    void Waited(std::chrono::nanoseconds time);
    void Complete();
    void Fail(const absl::Status& status);

   private:
    void End(v1::WorkerState state, const std::string& error);
    WorkerRegistry& registry_;
    const std::shared_ptr<Entry> entry_;  // guarded by the registry's lock
    bool ended_ = false;
  };

  // `selected_bytes` is what the pull will send if nothing goes wrong. `resumed`: it goes on where one before was cut.
  std::unique_ptr<Pull> StartPull(const WorkerId& id, const std::string& peer, uint64_t version,
                                  uint64_t selected_bytes, bool resumed = false) ABSL_LOCKS_EXCLUDED(mutex_);

  // A worker that watches versions, until destroyed: one that never pulled is then forgotten.
  class Watch {
   public:
    Watch(WorkerRegistry& registry, std::shared_ptr<Entry> entry);
    ~Watch();

   private:
    WorkerRegistry& registry_;
    const std::shared_ptr<Entry> entry_;  // guarded by the registry's lock
  };
  std::unique_ptr<Watch> StartWatch(const WorkerId& id, const std::string& peer) ABSL_LOCKS_EXCLUDED(mutex_);

  // A version that the service has, or had.
  struct Had {
    VersionKey key;
    uint64_t digest = 0;  // of its manifest
  };
  // What a worker says of itself; `had` is the version that it means, if the service ever had that. True if it says
  // that it has one which the service never had, nor heard of before from this life of it while it did.
  // INVALID_ARGUMENT without a version, or with an unknown phase.
  absl::StatusOr<bool> Report(const v1::ReportWorkerRequest& report, const std::string& peer,
                              const std::optional<Had>& had) ABSL_LOCKS_EXCLUDED(mutex_);

  // Calls `on_change`, with no lock held, after each report, and whenever a worker comes or goes.
  uint64_t Observe(std::function<void()> on_change) ABSL_LOCKS_EXCLUDED(mutex_);
  // After it returned, `on_change` may still be running but is not called any more.
  void StopObserving(uint64_t id) ABSL_LOCKS_EXCLUDED(mutex_);

  // Of one model, or of all if it is empty; by model, name and life.
  std::vector<v1::Worker> List(const std::string& model) const;

  // Of all workers since the start, also of those that are forgotten.
  struct Totals {
    uint64_t pulls = 0;
    uint64_t resumed_pulls = 0;
    uint64_t sent_bytes = 0;
  };
  Totals totals() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  std::shared_ptr<Entry> Touch(const WorkerId& id, const std::string& peer) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ForgetFormerLives(const WorkerId& id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ForgetSilent(std::chrono::steady_clock::time_point now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void MakeRoom() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Tell() ABSL_LOCKS_EXCLUDED(mutex_);

  const uint32_t max_workers_;
  mutable absl::Mutex mutex_;
  std::map<WorkerId, std::shared_ptr<Entry>> workers_ ABSL_GUARDED_BY(mutex_);
  Totals totals_ ABSL_GUARDED_BY(mutex_);
  uint64_t next_observer_ ABSL_GUARDED_BY(mutex_) = 1;
  std::map<uint64_t, std::function<void()>> observers_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace refit
