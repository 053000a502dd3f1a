// Stores all versions of all models: opens, commits and retires them, and calls observers.
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

// One version of a model may be open at a time. Numbers of committed versions grow within a trainer epoch. A larger
// epoch (a new lineage) may start again with small numbers. The newest committed version of a model is never retired to
// free memory. Thread-safe.
class VersionStore {
 public:
  explicit VersionStore(StoreOptions options);

  // Opens a version for one of its ranks, and reserves memory for the whole version. Retires older versions if their
  // memory is needed, and all of them if the version is streamed. If another rank has opened the version and this rank
  // has not joined yet, returns that version. The caller then has the rank join. ALREADY_EXISTS: the number is open
  // (and this rank has joined) or was committed. FAILED_PRECONDITION: the number is below a committed one of its epoch,
  // another version of the model is open, or a larger trainer epoch was seen. An epoch larger than all before aborts
  // the model's open version. RESOURCE_EXHAUSTED: the budget has no room, or there are too many models or open
  // versions. INVALID_ARGUMENT: an empty or too long model name, number 0, or another world than the open version's.
  // ABORTED: the version was aborted before this rank joined; returned once, and then the number is free again.
  absl::StatusOr<std::shared_ptr<Version>> Open(VersionIdentity identity, uint32_t rank, VersionPlan plan)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // Commits an open version, which makes it visible as such. Retires versions beyond the retained number. DATA_LOSS,
  // naming both, if its manifest's digest is not the expected one.
  absl::Status Commit(Version& version, std::optional<uint64_t> expected_digest = std::nullopt)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // Returns false, and does nothing, if the version is not open any more.
  bool Abort(Version& version, std::string reason) ABSL_LOCKS_EXCLUDED(mutex_);

  // Lets workers install a version that holds installs. FAILED_PRECONDITION if it is aborted or retired.
  absl::Status ReleaseInstalls(Version& version) ABSL_LOCKS_EXCLUDED(mutex_);

  // Numbers of known versions between the two that were committed, in their order.
  std::vector<uint64_t> CommittedBetween(const std::string& model, VersionKey after, VersionKey before) const
      ABSL_LOCKS_EXCLUDED(mutex_);

  // NOT_FOUND, listing what there is, if none matches. An unset selector means the newest committed version.
  absl::StatusOr<std::shared_ptr<Version>> Find(const std::string& model, const v1::VersionSelector& selector) const
      ABSL_LOCKS_EXCLUDED(mutex_);
  absl::StatusOr<std::shared_ptr<Version>> FindNumber(const std::string& model, uint64_t number) const
      ABSL_LOCKS_EXCLUDED(mutex_);
  // Null if it is not known.
  std::shared_ptr<Version> FindKey(const std::string& model, const VersionKey& key) const ABSL_LOCKS_EXCLUDED(mutex_);
  // The largest trainer epoch seen for the model; 0 if none was.
  uint64_t Epoch(const std::string& model) const ABSL_LOCKS_EXCLUDED(mutex_);

  // The versions of one model, or of all if it is empty, ordered by model, trainer epoch and number.
  std::vector<std::shared_ptr<Version>> List(const std::string& model) const ABSL_LOCKS_EXCLUDED(mutex_);

  // Calls `on_change` after each change of state of a version of the model, with no lock held, from the thread that
  // made the change.
  using Observer = VersionObservers::Observer;
  uint64_t Observe(std::string model, Observer on_change) {
    return observers_.Add(std::move(model), std::move(on_change));
  }
  // For every model.
  uint64_t ObserveAll(Observer on_change) { return observers_.Add(std::nullopt, std::move(on_change)); }
  void StopObserving(uint64_t id) { observers_.Remove(id); }

  // Facts about a model that outlive its versions.
  struct ModelRecord {
    uint64_t newest_committed = 0;  // in `trainer_epoch`; 0: none yet
    uint64_t trainer_epoch = 0;     // the largest seen

    // Not defaulted, because the header is also compiled as C++17.
    friend bool operator==(const ModelRecord& a, const ModelRecord& b) {
      return a.newest_committed == b.newest_committed && a.trainer_epoch == b.trainer_epoch;
    }
  };
  std::map<std::string, ModelRecord> Records() const ABSL_LOCKS_EXCLUDED(mutex_);
  ModelRecord Record(const std::string& model) const ABSL_LOCKS_EXCLUDED(mutex_);
  // For a service that mirrors another one which has lost its memory: forgets all versions after this one, as if they
  // had never been. An open one is aborted, for this reason.
  void ForgetAfter(const std::string& model, const VersionKey& newest, const std::string& reason)
      ABSL_LOCKS_EXCLUDED(mutex_);
  // Call it at the start, before versions are opened: restores what an earlier process of the service knew.
  void RestoreRecord(const std::string& model, const ModelRecord& record) ABSL_LOCKS_EXCLUDED(mutex_);
  void RestoreVersion(std::shared_ptr<Version> version) ABSL_LOCKS_EXCLUDED(mutex_);

  // How many versions of each model were committed, aborted and so on since the start.
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
  // The version that other ranks have opened and this one is to join. Null if this rank is to open it.
  absl::StatusOr<std::shared_ptr<Version>> FindToJoin(const VersionIdentity& identity, uint32_t rank)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status CheckIdentity(const VersionIdentity& identity) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Refuses an outdated run of the trainer. For a new run, aborts what the previous run has open.
  absl::Status Fence(const VersionIdentity& identity, Changes& changes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status CheckMayOpen(const VersionIdentity& identity) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status CheckOpenVersions() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Makes room for the largest tensor, and retires all older versions.
  absl::Status MakeRoomToStream(const VersionIdentity& identity, const VersionPlan& plan, Changes& changes)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status MakeRoom(const std::string& label, uint64_t bytes, Changes& changes)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  uint64_t ReservedLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void RetireBeyond(uint32_t retained, Versions& versions, Changes& changes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ForgetOld(Versions& versions) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Puts touched memory for a version like this one into the pool. Stops if more versions than `opened` have been
  // opened.
  void PrefaultForNext(const Version& version, uint64_t opened) ABSL_LOCKS_EXCLUDED(mutex_);

  const StoreOptions options_;
  const std::shared_ptr<TensorMemory> memory_;

  mutable absl::Mutex mutex_;
  std::map<std::string, Versions> models_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, ModelRecord> records_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, Outcomes> outcomes_ ABSL_GUARDED_BY(mutex_);

  VersionObservers observers_;
  std::atomic<uint64_t> opened_{0};            // number of versions opened so far
  const std::unique_ptr<WorkQueue> prefault_;  // null if not requested; last member: its thread ends first
};

}  // namespace refit
