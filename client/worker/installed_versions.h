// Tracks which version a worker uses and used before, and decides which may come next.
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

// How a refit may choose a version. kFollow: only forward; the version may wait for its release. kForward: only
// forward, to a version that need not wait. kBack: back to an earlier version.
enum class Way { kFollow, kForward, kBack };

// It has no connection and no tensors: it is told which versions were seen, torn and installed, and decides what is
// allowed. Thread-safe.
class InstalledVersions {
 public:
  // `options` must have the worker's name, and must outlive it.
  explicit InstalledVersions(const WorkerOptions& options) : options_(options) {}

  // The version in use. None before the first, and while torn.
  std::optional<VersionSummary> installed() const;
  // The version in use before that one.
  std::optional<VersionSummary> previous() const;
  // The version that is overwriting the one in use.
  std::optional<VersionSummary> torn() const;
  // Whether the service never had the version in use, or the torn one.
  bool of_other_run() const;

  // Whether it is already in use, with the same bytes as far as is known.
  bool IsInstalled(const VersionSummary& version) const;
  // Whether Follow should stage it.
  bool IsDue(const VersionSummary& version) const;
  // FAILED_PRECONDITION, with the reason, for a version that must not be installed.
  absl::Status CheckMayInstall(const VersionSummary& version, Way way) const;

  // Waits until this version or a later one is in use; see Worker::WaitForVersion. CANCELLED after EndWaits.
  absl::Status Await(uint64_t version, std::chrono::milliseconds timeout, std::optional<uint64_t> trainer_epoch) const;
  void EndWaits();

  void Hear(const VersionSummary& version);
  void SetTorn(const VersionSummary& version);
  // The version that was in use before SetTorn is whole again.
  void SetWholeAgain();
  void SetInstalled(const VersionSummary& version);
  // Its install failed, and the old version is still in use. It is not due again.
  void SetFailed(const VersionSummary& version);
  void SetOtherRun(bool other_run);

  // Whether the service has the version in use after all, although it was considered to be of another run.
  bool IsBackAtService(const VersionSummary& offered) const;
  // An error, the first time only, if the offered version is not taken because the version in use is of another run.
  absl::Status ComplainOfOtherRun(const VersionSummary& offered);

 private:
  // The functions below need mutex_ held.
  absl::Status CheckForward(const VersionSummary& version) const;
  absl::Status CheckBack(const VersionSummary& version) const;
  bool IsInUse(const VersionSummary& version) const;
  bool IsThere(uint64_t version, std::optional<uint64_t> trainer_epoch) const;
  // Whether the version in use, or torn, is of another run, and should be left.
  bool LeavesItsRun() const { return other_run_ && options_.accept_new_run; }
  // The version in use, or torn; 0 of epoch 0 before the first.
  VersionKey Present() const;
  absl::Status OtherRun(const VersionSummary& offered) const;

  const WorkerOptions& options_;

  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  // Guarded by mutex_.
  std::optional<VersionSummary> installed_;
  std::optional<VersionSummary> previous_;
  std::optional<VersionSummary> torn_;
  std::optional<VersionSummary> before_previous_;  // previous_ before the first SetTorn
  VersionKey highest_;         // ever installed, or tried without success: Follow only takes higher ones
  uint64_t newest_epoch_ = 0;  // seen so far
  bool other_run_ = false;
  bool told_other_run_ = false;
  bool waits_ended_ = false;
};

}  // namespace refit
