// Opens a push: opens the version, declares its tensors, and receives what the service needs of them.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "client/trainer/cast_shards.h"
#include "client/trainer/push_stream.h"
#include "client/trainer/shared_ring.h"
#include "refit/box.h"
#include "refit/publish_options.h"
#include "refit/version_summary.h"

namespace refit {

// The service's answer to the opening.
struct OpenedPush {
  VersionSummary summary;
  std::vector<bool> digest_only;  // shards that another rank sends
  std::vector<bool> unneeded;     // shards that no output needs
  uint64_t chunk_limit = 0;       // bytes of the longest chunk allowed; at least 1
  uint64_t window_bytes = 0;      // payload bytes allowed without acknowledgement; 0: no limit
  bool shares_memory = false;     // whether it reads payloads from the ring
};

// Opens the version, and waits until all ranks have opened it. Each shard is declared as its cast sends it. `ring`, if
// there is one, is offered to the service. Errors end the stream: the service's error; INTERNAL for an invalid answer;
// FAILED_PRECONDITION if the service is too old for `options`.
absl::StatusOr<OpenedPush> OpenPush(PushStream& stream, const PublishOptions& options,
                                    absl::Span<const TensorPart> shards, absl::Span<const ShardCast> casts,
                                    const SharedRing* ring);

}  // namespace refit
