// Who pulls what: the fleet as the service sees it.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "refit/v1/inspect.pb.h"

namespace refit {

// Thread-safe. Workers are known by model and name; one is forgotten an hour after its last call, the longest silent
// first when there are too many.
class WorkerRegistry {
  struct Entry {
    v1::Worker worker;
    int pulls = 0;    // under way
    int watches = 0;  // likewise
    absl::Time last_call;
    bool IsIdle() const { return pulls == 0 && watches == 0; }
  };

 public:
  // So many that a list of them fits into one message, however long their names and errors.
  static constexpr uint32_t kMaxWorkers = 4'000;

  explicit WorkerRegistry(uint32_t max_workers = kMaxWorkers) : max_workers_(max_workers) {}

  // RESOURCE_EXHAUSTED if this one is not known, and none of those that are can be forgotten: all pull or watch.
  absl::Status CheckRoom(const std::string& model, const std::string& name);

  // One pull of one worker; reports itself as failed if destroyed before Complete or Fail.
  class Pull {
   public:
    Pull(WorkerRegistry& registry, std::shared_ptr<Entry> entry);
    ~Pull();
    void Sent(uint64_t bytes);
    void Waited(absl::Duration time);
    void Complete();
    void Fail(const absl::Status& status);

   private:
    void End(v1::WorkerState state, const std::string& error);
    WorkerRegistry& registry_;
    const std::shared_ptr<Entry> entry_;  // guarded by the registry's lock
    bool ended_ = false;
  };

  // `selected_bytes` is what the pull will send if nothing goes wrong.
  std::unique_ptr<Pull> StartPull(const std::string& model, const std::string& name, const std::string& peer,
                                  uint64_t version, uint64_t selected_bytes);
  // A worker that watches versions, until WatchEnded: one that never pulled is then forgotten.
  void Watching(const std::string& model, const std::string& name, const std::string& peer);
  void WatchEnded(const std::string& model, const std::string& name);

  // Of one model, or of all if it is empty; by model and name.
  std::vector<v1::Worker> List(const std::string& model) const;

 private:
  using Key = std::pair<std::string, std::string>;

  std::shared_ptr<Entry> Touch(const std::string& model, const std::string& name, const std::string& peer)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Forget(absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const uint32_t max_workers_;
  mutable absl::Mutex mutex_;
  std::map<Key, std::shared_ptr<Entry>> workers_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace refit
