// All versions of all models: which may be opened, which are kept, and who hears of them.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "common/adapters/plan.h"
#include "common/net/version_key.h"
#include "common/wire/digest.h"
#include "refit/store_options.h"
#include "refit/v1/pull.pb.h"
#include "server/process/work_queue.h"
#include "server/store/tensor_memory.h"
#include "server/store/version.h"
#include "server/store/version_lookup.h"
#include "server/store/version_observers.h"

namespace refit {

// Rules: one version of a model is open at a time. Numbers of committed versions grow within a trainer epoch; a larger
// epoch (a new lineage) may start anew. The newest committed version of a model is never given up for memory.
// Thread-safe.
class VersionStore {
 public:
  explicit VersionStore(StoreOptions options);

  // Opens a version for one of its ranks and reserves memory for all of it. Retires older versions where that is
  // needed, and all of them if the version is streamed. If another rank has opened it and this one is still missing,
  // returns that version. The caller then makes the rank join. ALREADY_EXISTS: the number is open (and this rank has
  // joined) or was committed. FAILED_PRECONDITION: it lies below a committed one of its epoch, another version of the
  // model is open, or a larger trainer epoch was seen; a larger one than before aborts the model's open version.
  // RESOURCE_EXHAUSTED: the budget has no room, or too many models or open versions. INVALID_ARGUMENT: an empty or
  // overlong model name, number 0, another world than the open version's. ABORTED: the version was aborted while this
  // rank was on its way to it; told once, and then the number is free again.
  absl::StatusOr<std::shared_ptr<Version>> Open(VersionIdentity identity, uint32_t rank, VersionPlan plan)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // Makes an open version whole and visible as such; retires what is beyond the retained number.
  absl::Status Commit(Version& version) ABSL_LOCKS_EXCLUDED(mutex_);

  // False, and nothing happens, if the version is not open any more.
  bool Abort(Version& version, std::string reason) ABSL_LOCKS_EXCLUDED(mutex_);

  // Lets workers install a version that holds installs. FAILED_PRECONDITION if it is aborted or retired.
  absl::Status ReleaseInstalls(Version& version) ABSL_LOCKS_EXCLUDED(mutex_);

  // Numbers of versions that were committed, between the two, that are still known; in their order.
  std::vector<uint64_t> CommittedBetween(const std::string& model, VersionKey after, VersionKey before) const
      ABSL_LOCKS_EXCLUDED(mutex_);

  // NOT_FOUND, saying what there is, otherwise. An unset selector means the newest committed version.
  absl::StatusOr<std::shared_ptr<Version>> Find(const std::string& model, const v1::VersionSelector& selector) const
      ABSL_LOCKS_EXCLUDED(mutex_);
  absl::StatusOr<std::shared_ptr<Version>> FindNumber(const std::string& model, uint64_t number) const
      ABSL_LOCKS_EXCLUDED(mutex_);
  // Null if it is not known.
  std::shared_ptr<Version> FindKey(const std::string& model, const VersionKey& key) const ABSL_LOCKS_EXCLUDED(mutex_);
  // The largest trainer epoch that was seen of the model; 0 if none was.
  uint64_t Epoch(const std::string& model) const ABSL_LOCKS_EXCLUDED(mutex_);

  // Of one model, or of all if it is empty; by model, trainer epoch and number.
  std::vector<std::shared_ptr<Version>> List(const std::string& model) const ABSL_LOCKS_EXCLUDED(mutex_);

  // Calls `on_change` after each change of state of a version of the model, with no lock held, from the thread that
  // made the change.
  using Observer = VersionObservers::Observer;
  uint64_t Observe(std::string model, Observer on_change) {
    return observers_.Add(std::move(model), std::move(on_change));
  }
  // Of every model.
  uint64_t ObserveAll(Observer on_change) { return observers_.Add(std::nullopt, std::move(on_change)); }
  void StopObserving(uint64_t id) { observers_.Remove(id); }

  // What outlives the versions of a model.
  struct ModelRecord {
    uint64_t newest_committed = 0;  // of `trainer_epoch`; 0: none yet
    uint64_t trainer_epoch = 0;     // the largest that was seen

    // Not defaulted: read as C++17 too.
    friend bool operator==(const ModelRecord& a, const ModelRecord& b) {
      return a.newest_committed == b.newest_committed && a.trainer_epoch == b.trainer_epoch;
    }
  };
  std::map<std::string, ModelRecord> Records() const ABSL_LOCKS_EXCLUDED(mutex_);
  // At the start, before anybody opens: what an earlier life of the service knew and had.
  void RestoreRecord(const std::string& model, const ModelRecord& record) ABSL_LOCKS_EXCLUDED(mutex_);
  void RestoreVersion(std::shared_ptr<Version> version) ABSL_LOCKS_EXCLUDED(mutex_);

  // How many versions of each model came to which end since the start.
  struct Outcomes {
    uint64_t committed = 0;
    uint64_t aborted = 0;
    uint64_t fenced = 0;  // aborted because a later run of the trainer took over
  };
  std::map<std::string, Outcomes> outcomes() const ABSL_LOCKS_EXCLUDED(mutex_);

  // Bytes reserved by versions that hold data.
  uint64_t reserved_bytes() const ABSL_LOCKS_EXCLUDED(mutex_);
  TensorMemory& memory() const { return *memory_; }
  const StoreOptions& options() const { return options_; }

 private:
  using Changes = std::vector<std::shared_ptr<Version>>;

  absl::StatusOr<std::shared_ptr<Version>> OpenLocked(VersionIdentity identity, uint32_t rank, VersionPlan plan,
                                                      Changes& changes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The version that other ranks have opened and this one is to join; null if it is to open its own.
  absl::StatusOr<std::shared_ptr<Version>> FindToJoin(const VersionIdentity& identity, uint32_t rank)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status CheckIdentity(const VersionIdentity& identity) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Refuses a run of the trainer that is not the last one, and ends what the run before has open.
  absl::Status Fence(const VersionIdentity& identity, Changes& changes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status CheckMayOpen(const VersionIdentity& identity) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status CheckOpenVersions() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Room for the largest tensor, and all older versions retired.
  absl::Status MakeRoomToStream(const VersionIdentity& identity, const VersionPlan& plan, Changes& changes)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status MakeRoom(const std::string& label, uint64_t bytes, Changes& changes)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  uint64_t ReservedLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void RetireBeyond(uint32_t retained, Versions& versions, Changes& changes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ForgetOld(Versions& versions) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Has memory for a version like this one idle in the pool, touched; stops once more versions than `opened` were
  // opened.
  void PrefaultForNext(const Version& version, uint64_t opened) ABSL_LOCKS_EXCLUDED(mutex_);

  const StoreOptions options_;
  const std::shared_ptr<TensorMemory> memory_;

  mutable absl::Mutex mutex_;
  std::map<std::string, Versions> models_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, ModelRecord> records_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, Outcomes> outcomes_ ABSL_GUARDED_BY(mutex_);

  VersionObservers observers_;
  std::atomic<uint64_t> opened_{0};            // how many versions were
  const std::unique_ptr<WorkQueue> prefault_;  // null without it; last: its thread ends first
};

}  // namespace refit
