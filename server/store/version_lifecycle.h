// The state of a version: open, then committed or aborted, at last retired.
#pragma once

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "refit/v1/types.pb.h"

namespace refit {

// Not thread-safe.
class VersionLifecycle {
 public:
  // The state is open. `label`: the version's name for messages.
  VersionLifecycle(std::string label, bool holds_installs) : label_(std::move(label)), installs_held_(holds_installs) {}

  v1::VersionState state() const { return state_; }
  bool is_open() const { return state_ == v1::VERSION_STATE_OPEN; }
  bool is_retired() const { return state_ == v1::VERSION_STATE_RETIRED; }
  // Empty unless it was aborted.
  const std::string& abort_reason() const { return abort_reason_; }
  // Whether it was aborted because a later run of its trainer has taken over.
  bool is_fenced() const { return fenced_; }
  // Whether workers may stage it but must not install it until the trainer releases it.
  bool installs_held() const { return installs_held_; }
  bool holds_data() const { return holds_data_; }

  // ABORTED if it was aborted, FAILED_PRECONDITION if it is not open for another reason.
  absl::Status CheckOpen() const;
  // FAILED_PRECONDITION unless it is open or committed. Other versions cannot be pulled.
  absl::Status CheckPullable() const;
  // ABORTED if it was aborted, FAILED_PRECONDITION if its data were dropped.
  absl::Status CheckHoldsData() const;

  // Only while it is open.
  void Commit() { state_ = v1::VERSION_STATE_COMMITTED; }
  void Abort(std::string reason, bool fenced);
  // Only if it is committed.
  void Retire() { state_ = v1::VERSION_STATE_RETIRED; }
  // FAILED_PRECONDITION if it is aborted or retired.
  absl::Status ReleaseInstalls();
  // False if they were already dropped.
  bool DropData() { return std::exchange(holds_data_, false); }

 private:
  const std::string label_;
  v1::VersionState state_ = v1::VERSION_STATE_OPEN;
  std::string abort_reason_;
  bool fenced_ = false;
  bool installs_held_;
  bool holds_data_ = true;
};

}  // namespace refit
