// How a push begins: the version is opened, its tensors are declared, and the service says what it wants of them.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "client/trainer/push_stream.h"
#include "client/trainer/shared_ring.h"
#include "refit/box.h"
#include "refit/publish_options.h"
#include "refit/version_summary.h"

namespace refit {

// What the service has agreed to.
struct OpenedPush {
  VersionSummary summary;
  std::vector<bool> digest_only;  // shards that another rank sends
  std::vector<bool> unneeded;     // shards that no output needs
  uint64_t chunk_limit = 0;       // bytes of the longest chunk that may be sent; at least 1
  uint64_t window_bytes = 0;      // of payload that may be under way; 0: any
  bool shares_memory = false;     // it takes payloads out of the ring
};

// Opens the version, and waits until all ranks have. `ring`, if there is one, is offered to the service. Errors end the
// stream: what the service says of the push; INTERNAL for an answer that cannot be meant; FAILED_PRECONDITION for a
// service that is older than what `options` ask for.
absl::StatusOr<OpenedPush> OpenPush(PushStream& stream, const PublishOptions& options,
                                    const std::vector<TensorPart>& shards, const SharedRing* ring);

}  // namespace refit
