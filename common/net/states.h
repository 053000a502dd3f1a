// Names of the states of versions and workers, for people and programs.
#pragma once

#include <string>

#include "refit/v1/inspect.pb.h"
#include "refit/v1/types.pb.h"

namespace refit {

// "open", "committed"; "state 9" for a state that this build does not know.
std::string StateName(v1::VersionState state);
std::string StateName(v1::WorkerState state);

// The name to show for a worker: its label if there are several workers of its name, otherwise its name.
inline const std::string& ShownName(const v1::Worker& worker) {
  return worker.label().empty() ? worker.name() : worker.label();
}

// Whether the version was committed, even if it has been retired since.
inline bool WasCommitted(v1::VersionState state) {
  return state == v1::VERSION_STATE_COMMITTED || state == v1::VERSION_STATE_RETIRED;
}

}  // namespace refit
