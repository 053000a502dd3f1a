// What the states of versions and workers are called, wherever people or programs read them.
#pragma once

#include <string>

#include "refit/v1/inspect.pb.h"
#include "refit/v1/types.pb.h"

namespace refit {

// "open", "committed"; "state 9" for one that this build does not know.
std::string StateName(v1::VersionState state);
std::string StateName(v1::WorkerState state);

// What to call a worker: its name, or, among others of that name, its label.
inline const std::string& ShownName(const v1::Worker& worker) {
  return worker.label().empty() ? worker.name() : worker.label();
}

// Committed, whether it is still kept or not.
inline bool WasCommitted(v1::VersionState state) {
  return state == v1::VERSION_STATE_COMMITTED || state == v1::VERSION_STATE_RETIRED;
}

}  // namespace refit
