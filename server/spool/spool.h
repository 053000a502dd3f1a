// Keeps committed versions on disk, and serves them again after a restart.
//
// A thread of its own writes, so that neither a trainer's commit nor any other call waits for the disk. A version is
// durable once its summary says `spooled`, shortly after its commit. Only a model's newest version is written; a
// version that is superseded before that is skipped. The file of a retired version is removed once a newer one is
// written. When the disk is full or fails, the service continues from memory, reports it, and tries again.
#pragma once

#include <chrono>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "refit/event_log.h"
#include "refit/v1/inspect.pb.h"
#include "server/spool/spool_folder.h"
#include "server/spool/spooled_version.h"
#include "server/store/version_store.h"

namespace refit {

// What becomes of held installs after a restart. A trainer's releases reach the process that it pushed to; a relay
// hears of them again from the service above.
enum class HeldInstalls { kEnd, kStay };

// Thread-safe.
class Spool {
 public:
  using Clock = std::chrono::steady_clock;

  // Takes the lock of the folder, removes unfinished files of an earlier process, and gives the store the complete
  // versions: the newest of each model, as many as the store retains. A damaged one is renamed to *.bad. All bytes are
  // read and checked before it returns. The store must not be in use yet. `store` must outlive the spool. Errors as
  // SpoolFolder::Open; DATA_LOSS as SpoolFolder::ReadRecords.
  static absl::StatusOr<std::unique_ptr<Spool>> Open(const std::string& folder, SpoolOwner owner,
                                                     uint64_t max_chunk_bytes, VersionStore& store, EventLog log,
                                                     HeldInstalls held = HeldInstalls::kEnd);
  ~Spool();
  Spool(const Spool&) = delete;
  Spool& operator=(const Spool&) = delete;

  // Writes pending versions until `deadline` at the latest, and ends. The destructor does not wait.
  void Stop(Clock::time_point deadline);

  v1::SpoolInfo Info() const;

 private:
  struct File {
    std::string name;
    uint64_t bytes = 0;
  };
  using Files = std::map<VersionKey, File>;
  struct Found {
    std::string name;
    SpooledFile file;
  };

  Spool(SpoolFolder folder, uint64_t max_chunk_bytes, VersionStore& store, EventLog log, HeldInstalls held);

  // Called at the start.
  absl::Status Load();
  absl::Status RestoreRecords();
  void LoadModel(std::map<VersionKey, Found> files);
  // Returns whether it is served now.
  bool LoadVersion(const Found& found);
  void Quarantine(const std::string& name, const absl::Status& why);

  // The thread's function.
  void Run();
  std::set<std::string> NextModels();
  absl::Status Update(const std::string& model);
  absl::Status Write(const std::shared_ptr<Version>& version);
  void RemoveRetired(const std::string& model, const std::vector<std::shared_ptr<Version>>& versions);
  absl::Status SaveRecords();
  Files FilesOf(const std::string& model) const;
  void Report(const std::string& model, const absl::Status& status);
  bool MayGoOn() const;

  const SpoolFolder folder_;
  const uint64_t max_chunk_bytes_;
  const HeldInstalls held_;
  VersionStore& store_;
  const EventLog log_;
  SpoolFolder::Records saved_;  // used only by the thread
  uint64_t observer_ = 0;

  // Standard mutex and condition variable, because Abseil's wait by the wall clock. The mutex guards all members below.
  mutable std::mutex mutex_;
  std::condition_variable changes_;
  std::map<std::string, Files> files_;
  std::set<std::string> changed_;              // models to check
  std::map<std::string, std::string> errors_;  // of models whose last write failed
  int64_t last_error_at_ns_ = 0;               // wall-clock time; 0: never
  bool stopping_ = false;
  bool ended_ = true;  // of the thread
  Clock::time_point deadline_ = Clock::time_point::max();
  std::thread thread_;
};

}  // namespace refit
