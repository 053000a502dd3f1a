// Which version a worker has in use, which it had before, and which may come next.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <optional>

#include "absl/status/status.h"
#include "common/net/version_key.h"
#include "refit/version_summary.h"
#include "refit/worker.h"

namespace refit {

// What a refit may install: Follow goes forward only, and may wait for a release; a call may go where it is told.
enum class Way { kFollow, kForward, kBack };

// Knows no service and no tensors: it is told what was heard, torn and installed, and says what may be done.
// Thread-safe.
class InstalledVersions {
 public:
  // `options`, with the worker's name, must outlive it.
  explicit InstalledVersions(const WorkerOptions& options) : options_(options) {}

  // In use; none before the first, and while torn.
  std::optional<VersionSummary> installed() const;
  // In use before that one.
  std::optional<VersionSummary> previous() const;
  // Being written over the one in use.
  std::optional<VersionSummary> torn() const;
  // The service never had what is in use, or torn.
  bool of_other_run() const;

  // In use already, with the same bytes as far as is known.
  bool IsInstalled(const VersionSummary& version) const;
  // Follow is to stage it.
  bool IsDue(const VersionSummary& version) const;
  // FAILED_PRECONDITION, saying why, for a version that may not be installed.
  absl::Status CheckMayInstall(const VersionSummary& version, Way way) const;

  // Until this version or a later one is in use; see Worker::WaitForVersion. CANCELLED after EndWaits.
  absl::Status Await(uint64_t version, std::chrono::milliseconds timeout, std::optional<uint64_t> trainer_epoch) const;
  void EndWaits();

  void Hear(const VersionSummary& version);
  void SetTorn(const VersionSummary& version);
  void SetInstalled(const VersionSummary& version);
  // Its install failed, and what was in use still is: it is not due again.
  void SetFailed(const VersionSummary& version);
  void SetOtherRun(bool other_run);

  // The service has the version in use after all, though it was said to be of another run.
  bool IsBackAtService(const VersionSummary& offered) const;
  // That what the service offers is not taken, since the version in use is of another run. Once; OK otherwise.
  absl::Status ComplainOfOtherRun(const VersionSummary& offered);

 private:
  // All below with mutex_ held.
  absl::Status CheckForward(const VersionSummary& version) const;
  absl::Status CheckBack(const VersionSummary& version) const;
  bool IsInUse(const VersionSummary& version) const;
  bool IsThere(uint64_t version, std::optional<uint64_t> trainer_epoch) const;
  // What is in use, or torn, is of another run, and is to be left for it.
  bool LeavesItsRun() const { return other_run_ && options_.accept_new_run; }
  // In use, or torn; 0 of 0 before the first.
  VersionKey Present() const;
  absl::Status OtherRun(const VersionSummary& offered) const;

  const WorkerOptions& options_;

  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  // Guarded by mutex_.
  std::optional<VersionSummary> installed_;
  std::optional<VersionSummary> previous_;
  std::optional<VersionSummary> torn_;
  VersionKey highest_;         // ever installed, or tried in vain: Follow goes only beyond
  uint64_t newest_epoch_ = 0;  // that was heard of
  bool other_run_ = false;
  bool told_other_run_ = false;
  bool waits_ended_ = false;
};

}  // namespace refit
