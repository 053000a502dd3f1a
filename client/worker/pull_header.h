// The header of a pull's stream: which version comes.
#pragma once

#include "absl/status/status.h"
#include "client/worker/pull_errors.h"
#include "refit/pull.h"
#include "refit/v1/types.pb.h"
#include "refit/version_summary.h"

namespace refit {

// Whether it is of what the options ask for. INTERNAL if the service breaks the protocol; NOT_FOUND if it is of another
// run of the trainer, as a service sends it that knows no runs.
absl::Status CheckHeader(const v1::VersionSummary& header, const PullOptions& options, const PullErrors& errors);

// Whether a pull of `version` may go on with this one. Services that copy a version keep the time of its opening. Those
// to which it was pushed separately have their own, but the manifest's digest covers every byte.
bool IsSameVersion(const v1::VersionSummary& header, const VersionSummary& version);

}  // namespace refit
