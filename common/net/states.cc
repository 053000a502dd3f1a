#include "common/net/states.h"

#include "absl/strings/str_cat.h"

namespace refit {

std::string StateName(v1::VersionState state) {
  switch (state) {
    case v1::VERSION_STATE_OPEN:
      return "open";
    case v1::VERSION_STATE_COMMITTED:
      return "committed";
    case v1::VERSION_STATE_RETIRED:
      return "retired";
    case v1::VERSION_STATE_ABORTED:
      return "aborted";
    default:
      return absl::StrCat("state ", static_cast<int>(state));
  }
}

std::string StateName(v1::WorkerState state) {
  switch (state) {
    case v1::WORKER_STATE_WATCHING:
      return "watching";
    case v1::WORKER_STATE_PULLING:
      return "pulling";
    case v1::WORKER_STATE_COMPLETE:
      return "complete";
    case v1::WORKER_STATE_FAILED:
      return "failed";
    case v1::WORKER_STATE_STAGED:
      return "staged";
    case v1::WORKER_STATE_INSTALLED:
      return "installed";
    case v1::WORKER_STATE_OTHER_RUN:
      return "other run";
    case v1::WORKER_STATE_TORN:
      return "torn";
    default:
      return absl::StrCat("state ", static_cast<int>(state));
  }
}

}  // namespace refit
