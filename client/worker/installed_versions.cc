#include "client/worker/installed_versions.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

namespace refit {
namespace {

// Compares digests only if both are known; an open version has none yet.
bool MayBeTheSame(const VersionSummary& a, const VersionSummary& b) {
  return !a.manifest_digest.has_value() || !b.manifest_digest.has_value() || a.manifest_digest == b.manifest_digest;
}

}  // namespace

std::optional<VersionSummary> InstalledVersions::installed() const {
  const std::lock_guard lock(mutex_);
  return installed_;
}

std::optional<VersionSummary> InstalledVersions::previous() const {
  const std::lock_guard lock(mutex_);
  return previous_;
}

std::optional<VersionSummary> InstalledVersions::torn() const {
  const std::lock_guard lock(mutex_);
  return torn_;
}

bool InstalledVersions::of_other_run() const {
  const std::lock_guard lock(mutex_);
  return other_run_;
}

bool InstalledVersions::IsInstalled(const VersionSummary& version) const {
  const std::lock_guard lock(mutex_);
  return !other_run_ && IsInUse(version);
}

bool InstalledVersions::IsInUse(const VersionSummary& version) const {
  return installed_.has_value() && KeyOf(*installed_) == KeyOf(version) && MayBeTheSame(*installed_, version);
}

// An open version is staged while it is pushed; but not in place, because it might still be aborted.
bool InstalledVersions::IsDue(const VersionSummary& version) const {
  const bool is_open = version.state == VersionState::kOpen && !options_.in_place;
  if (version.state != VersionState::kCommitted && !is_open) return false;
  const std::lock_guard lock(mutex_);
  const VersionKey key = KeyOf(version);
  if (torn_.has_value()) return LeavesItsRun() || !(key < KeyOf(*torn_));
  return highest_ < key;
}

absl::Status InstalledVersions::CheckMayInstall(const VersionSummary& version, Way way) const {
  if (way == Way::kForward && version.installs_held) {
    return absl::FailedPreconditionError(
        absl::StrCat("version ", version.version, " may not be installed before its trainer says so"));
  }
  const std::lock_guard lock(mutex_);
  return way == Way::kBack ? CheckBack(version) : CheckForward(version);
}

absl::Status InstalledVersions::CheckForward(const VersionSummary& version) const {
  if (LeavesItsRun()) return absl::OkStatus();
  const VersionKey present = Present();
  const VersionKey offered = KeyOf(version);
  const bool differs = installed_.has_value() && offered == present && !MayBeTheSame(*installed_, version);
  if (differs || (other_run_ && !(present < offered))) return OtherRun(version);
  if (offered < present) {
    return absl::FailedPreconditionError(absl::StrCat(Describe(offered), " is older than ", Describe(present),
                                                      ", which is in use; go back with RollBack only"));
  }
  const bool leaps = options_.max_version_step != 0 && present.number != 0 && offered.epoch == present.epoch &&
                     offered.number - present.number > options_.max_version_step;
  if (leaps) {
    return absl::FailedPreconditionError(absl::StrCat(Describe(offered), " is more than ", options_.max_version_step,
                                                      " beyond ", Describe(present), ", which is in use"));
  }
  return absl::OkStatus();
}

absl::Status InstalledVersions::CheckBack(const VersionSummary& version) const {
  if (!previous_.has_value() || MayBeTheSame(*previous_, version)) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat("worker ", options_.pull.worker,
                                                    " cannot go back: the service has another ",
                                                    Describe(KeyOf(version)), " than the one that was in use"));
}

bool InstalledVersions::IsThere(uint64_t version, std::optional<uint64_t> trainer_epoch) const {
  if (!installed_.has_value() || installed_->version < version) return false;
  if (trainer_epoch.has_value()) return installed_->trainer_epoch == *trainer_epoch;
  return !other_run_ && installed_->trainer_epoch >= newest_epoch_;
}

absl::Status InstalledVersions::Await(uint64_t version, std::chrono::milliseconds timeout,
                                      std::optional<uint64_t> trainer_epoch) const {
  std::unique_lock lock(mutex_);
  const auto is_over = [&] { return IsThere(version, trainer_epoch) || waits_ended_; };
  const bool in_time = changed_.wait_for(lock, timeout, is_over);
  if (IsThere(version, trainer_epoch)) return absl::OkStatus();
  if (in_time) return absl::CancelledError(absl::StrCat("worker ", options_.pull.worker, " was stopped"));
  return absl::DeadlineExceededError(absl::StrCat(
      "worker ", options_.pull.worker, ": version ", version, " was not installed within ", timeout.count(), " ms; ",
      installed_.has_value() ? Describe(KeyOf(*installed_)) : std::string("none"), " is in use",
      other_run_ ? ", and is of another run, which this service never had" : ""));
}

void InstalledVersions::EndWaits() {
  const std::lock_guard lock(mutex_);
  waits_ended_ = true;
  changed_.notify_all();
}

void InstalledVersions::Hear(const VersionSummary& version) {
  const std::lock_guard lock(mutex_);
  newest_epoch_ = std::max(newest_epoch_, version.trainer_epoch);
}

void InstalledVersions::SetTorn(const VersionSummary& version) {
  const std::lock_guard lock(mutex_);
  if (installed_.has_value()) {
    before_previous_ = std::exchange(previous_, installed_);
    installed_.reset();
  }
  torn_ = version;
}

void InstalledVersions::SetWholeAgain() {
  const std::lock_guard lock(mutex_);
  if (!torn_.has_value()) return;
  torn_.reset();
  installed_ = std::exchange(previous_, std::exchange(before_previous_, std::nullopt));
  changed_.notify_all();
}

void InstalledVersions::SetInstalled(const VersionSummary& version) {
  const std::lock_guard lock(mutex_);
  if (installed_.has_value()) previous_ = installed_;
  installed_ = version;
  torn_.reset();
  highest_ = std::max(highest_, KeyOf(version));
  newest_epoch_ = std::max(newest_epoch_, version.trainer_epoch);
  other_run_ = told_other_run_ = false;
  changed_.notify_all();
}

void InstalledVersions::SetFailed(const VersionSummary& version) {
  const std::lock_guard lock(mutex_);
  highest_ = std::max(highest_, KeyOf(version));
}

void InstalledVersions::SetOtherRun(bool other_run) {
  const std::lock_guard lock(mutex_);
  if (other_run_ == other_run) return;
  other_run_ = other_run;
  told_other_run_ = false;
  if (LeavesItsRun()) highest_ = {};  // no version of the new run was tried
}

bool InstalledVersions::IsBackAtService(const VersionSummary& offered) const {
  const std::lock_guard lock(mutex_);
  return other_run_ && offered.state == VersionState::kCommitted && IsInUse(offered);
}

absl::Status InstalledVersions::ComplainOfOtherRun(const VersionSummary& offered) {
  const std::lock_guard lock(mutex_);
  if (!other_run_ || offered.state != VersionState::kCommitted || IsInUse(offered)) return absl::OkStatus();
  if (LeavesItsRun() || std::exchange(told_other_run_, true)) return absl::OkStatus();
  return OtherRun(offered);
}

VersionKey InstalledVersions::Present() const {
  if (installed_.has_value()) return KeyOf(*installed_);
  return torn_.has_value() ? KeyOf(*torn_) : VersionKey();
}

absl::Status InstalledVersions::OtherRun(const VersionSummary& offered) const {
  const VersionKey present = Present();
  return absl::FailedPreconditionError(absl::StrCat(
      Describe(KeyOf(offered)), KeyOf(offered) < present ? " is older than " : " has other bytes than ",
      Describe(present), ", which is in use: worker ", options_.pull.worker, " has ", Describe(present),
      " of another run, which this service never had; it stays with that until a larger number or a larger "
      "trainer_epoch comes, or takes what is offered with accept_new_run (refit follow --accept-new-run)"));
}

}  // namespace refit
