// What a trainer says of a version that it publishes.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "absl/types/span.h"
#include "refit/dtype.h"

namespace refit {

struct PublishOptions {
  std::string model = "default";
  // Must be larger than every version committed before under this model with the same trainer_epoch.
  uint64_t version = 0;
  std::string adapter = "gemma4_moe";
  // Floating-point outputs are cast to it on the way. Unset: no cast.
  std::optional<DType> dtype;
  // Python re.match on native names; those that match are not published. Empty: none.
  std::string exclude_key_regex;
  // Python re.match on native names; what becomes of those that match is not cast to `dtype`: what an engine wants in
  // F32, such as a router's bias. Empty: none. INVALID_ARGUMENT if it matches nothing; FAILED_PRECONDITION if the
  // service is from before it.
  std::string keep_dtype_regex;
  // Shown in the service's logs and status.
  std::string publisher;
  // Of a sharded trainer: which of its ranks this is, below `world`, and how many push the version together.
  uint32_t rank = 0;
  uint32_t world = 1;
  // Workers stage the version, and install it once ReleaseInstalls is called: a fleet switches together. Of a sharded
  // push, what the first rank to come says counts.
  bool hold_installs = false;
  // Which run of the trainer this is: larger than all before it, such as a restart count, the same on all its ranks. A
  // larger one than the service has seen of the model aborts what an older run still has open, whose push ends with
  // FAILED_PRECONDITION; an older run is refused likewise from then on. Numbers may start anew with it, and workers
  // follow. 0: no runs are told apart.
  uint64_t trainer_epoch = 0;
  // A version without tensors, or with only empty ones, is meant, and not refused.
  bool allow_empty = false;
  // Called every few seconds, from the thread that waits: in Open or Commit with the ranks that are still missing (the
  // first 16 of them); in Append and Push with none, while a streamed version waits for workers.
  std::function<void(absl::Span<const uint32_t> missing)> on_waiting;
  // Patience for each answer of the service, and for each write.
  std::chrono::milliseconds timeout = std::chrono::seconds(60);
};

}  // namespace refit
