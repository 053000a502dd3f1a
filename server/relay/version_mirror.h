// Brings one version of the service above into the store.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "refit/v1/types.pb.h"
#include "server/relay/above.h"
#include "server/server_parts.h"

namespace refit {

// Pulls this version, open or committed, into a version of the store, which workers can pull meanwhile. What has
// changed since the newest version here comes as deltas, if the service above has that one, too. OK: it is committed
// here, with the same digest. After an error it is aborted here: ABORTED, if it was aborted above; otherwise errors as
// Subscriber::Pull and VersionStore::Open.
absl::Status MirrorVersion(const v1::VersionSummary& wanted, const Above& above, ServerParts& parts);

}  // namespace refit
