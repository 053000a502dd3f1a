// The table of workers: what each one pulls and reports.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "common/net/version_key.h"
#include "refit/limits.h"
#include "refit/v1/inspect.pb.h"
#include "refit/v1/pull.pb.h"
#include "server/fleet/relays_below.h"
#include "server/fleet/sent_chunks.h"
#include "server/process/observers.h"

namespace refit {

// One life of a worker. Names are for people; two processes may have the same name.
struct WorkerId {
  std::string model;
  std::string name;
  uint64_t life = 0;  // 0: the worker sent none, and is identified by its name alone

  friend bool operator<(const WorkerId& a, const WorkerId& b) {
    return std::tie(a.model, a.name, a.life) < std::tie(b.model, b.name, b.life);
  }
};

// Thread-safe. A worker is forgotten an hour after its last call. If there are too many, the one that was silent
// longest is forgotten first. Of disconnected workers of one name, only the last is kept.
class WorkerRegistry {
  struct Entry {
    v1::Worker worker;
    int pulls = 0;  // pulls in progress
    int watches = 0;
    bool connected() const { return pulls + watches > 0; }
    std::chrono::steady_clock::time_point last_call;
    std::chrono::steady_clock::time_point pull_began;
  };

 public:
  explicit WorkerRegistry(uint32_t max_workers = kMaxWorkers) : max_workers_(max_workers) {}

  // What relays report; changes there are changes here.
  RelaysBelow& relays() { return relays_; }

  // RESOURCE_EXHAUSTED if this worker is unknown, and no known one can be forgotten because all pull or watch.
  absl::Status CheckRoom(const WorkerId& id) ABSL_LOCKS_EXCLUDED(mutex_);

  // One pull of one worker. If destroyed before Complete or Fail, it is recorded as failed.
  class Pull {
   public:
    Pull(WorkerRegistry& registry, std::shared_ptr<Entry> entry);
    ~Pull();
    void Sent(const SentChunk& chunk);
    // The base that deltas are sent of.
    void SetBase(uint64_t version);
    void Waited(std::chrono::nanoseconds time);
    void Complete();
    void Fail(const absl::Status& status);

   private:
    void End(v1::WorkerState state, const std::string& error);
    WorkerRegistry& registry_;
    const std::shared_ptr<Entry> entry_;  // guarded by the registry's lock
    SentChunks sent_;
    bool ended_ = false;
  };

  // `selected_bytes`: what the pull will send if nothing fails. `resumed`: whether it continues an interrupted pull.
  std::unique_ptr<Pull> StartPull(const WorkerId& id, const std::string& peer, uint64_t version,
                                  uint64_t selected_bytes, bool resumed = false) ABSL_LOCKS_EXCLUDED(mutex_);

  // A worker that watches versions, until destroyed. A worker that never pulled is forgotten then.
  class Watch {
   public:
    Watch(WorkerRegistry& registry, std::shared_ptr<Entry> entry);
    ~Watch();

   private:
    WorkerRegistry& registry_;
    const std::shared_ptr<Entry> entry_;  // guarded by the registry's lock
  };
  std::unique_ptr<Watch> StartWatch(const WorkerId& id, const std::string& peer) ABSL_LOCKS_EXCLUDED(mutex_);

  // A version that the service has or had.
  struct Had {
    VersionKey key;
    uint64_t digest = 0;  // of its manifest
  };
  // Records what a worker reports about itself. `had` is the reported version, if the service ever had it. Returns true
  // if the worker reports a version that the service never had, unless this life of the worker has reported it before,
  // while the service knew it. INVALID_ARGUMENT without a version, or for an unknown phase.
  absl::StatusOr<bool> Report(const v1::ReportWorkerRequest& report, const std::string& peer,
                              const std::optional<Had>& had) ABSL_LOCKS_EXCLUDED(mutex_);

  // Calls `on_change`, with no lock held, after each report, and whenever a worker connects or disconnects.
  uint64_t Observe(std::function<void()> on_change) { return observers_.Add(std::move(on_change)); }
  // When it returns, `on_change` may still be running but is not called again.
  void StopObserving(uint64_t id) { observers_.Remove(id); }

  // The workers of one model, or of all if it is empty, ordered by model, name and life: those that are connected here,
  // and those below relays. Who has moved from one to another is in it once.
  std::vector<v1::Worker> List(const std::string& model) const;

  // Sums over all workers since the start, including forgotten ones.
  struct Totals {
    uint64_t pulls = 0;
    uint64_t resumed_pulls = 0;
    SentChunks sent;
  };
  Totals totals() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  std::shared_ptr<Entry> Touch(const WorkerId& id, const std::string& peer) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ForgetFormerLives(const WorkerId& id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ForgetSilent(std::chrono::steady_clock::time_point now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void MakeRoom() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  std::vector<v1::Worker> ListHere(const std::string& model) const ABSL_LOCKS_EXCLUDED(mutex_);

  const uint32_t max_workers_;
  Observers observers_;
  RelaysBelow relays_{[this] { observers_.Tell(); }};
  mutable absl::Mutex mutex_;
  std::map<WorkerId, std::shared_ptr<Entry>> workers_ ABSL_GUARDED_BY(mutex_);
  Totals totals_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace refit
