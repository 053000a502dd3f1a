#include "server/store/version_lifecycle.h"

#include "absl/strings/str_cat.h"

namespace refit {

absl::Status VersionLifecycle::CheckOpen() const {
  if (is_open()) return absl::OkStatus();
  if (state_ == v1::VERSION_STATE_ABORTED) return CheckHoldsData();
  return absl::FailedPreconditionError(absl::StrCat("version ", label_, " is committed already"));
}

absl::Status VersionLifecycle::CheckPullable() const {
  if (is_open() || state_ == v1::VERSION_STATE_COMMITTED) return absl::OkStatus();
  const bool aborted = state_ == v1::VERSION_STATE_ABORTED;
  return absl::FailedPreconditionError(absl::StrCat("version ", label_, " is ", aborted ? "aborted" : "retired",
                                                    " and can no longer be pulled", aborted ? ": " : "",
                                                    abort_reason_));
}

absl::Status VersionLifecycle::CheckHoldsData() const {
  if (state_ == v1::VERSION_STATE_ABORTED) {
    return absl::AbortedError(absl::StrCat("version ", label_, " was aborted: ", abort_reason_));
  }
  if (!holds_data_) {
    return absl::FailedPreconditionError(
        absl::StrCat("version ", label_, " is retired and its memory was given to a newer one; pull a newer version"));
  }
  return absl::OkStatus();
}

void VersionLifecycle::Abort(std::string reason, bool fenced) {
  state_ = v1::VERSION_STATE_ABORTED;
  abort_reason_ = std::move(reason);
  fenced_ = fenced;
}

absl::Status VersionLifecycle::ReleaseInstalls() {
  if (state_ == v1::VERSION_STATE_ABORTED || state_ == v1::VERSION_STATE_RETIRED) {
    return absl::FailedPreconditionError(absl::StrCat("version ", label_, " is ",
                                                      state_ == v1::VERSION_STATE_ABORTED ? "aborted" : "retired",
                                                      ": there is nothing to install"));
  }
  installs_held_ = false;
  return absl::OkStatus();
}

}  // namespace refit
