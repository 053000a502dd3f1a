// Describes a version and its progress, as reported by the service. Fields are those of v1.VersionSummary in
// types.proto.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace refit {

// OPEN -> COMMITTED -> RETIRED, or OPEN -> ABORTED. Values equal refit.v1.VersionState in the protocol.
enum class VersionState {
  kUnknown = 0,    // a state that only a newer service knows
  kOpen = 1,       // its trainer is still pushing; workers may stage it, but must not install it yet
  kCommitted = 2,  // whole, immutable, digested
  kRetired = 3,    // was committed; its memory was given to newer versions
  kAborted = 4,    // was never committed, and never will be
};

// A plain value.
struct VersionSummary {
  std::string model;
  uint64_t version = 0;        // chosen by the trainer, grows within a model and a trainer_epoch
  uint64_t trainer_epoch = 0;  // run of the trainer that it belongs to
  VersionState state = VersionState::kUnknown;
  std::string adapter;         // converts its native tensors, such as "gemma4_moe"
  bool installs_held = false;  // workers stage it, but install it only once the trainer releases it
  std::string abort_reason;

  uint64_t tensors = 0;  // Hugging Face tensors, in manifest order
  uint64_t bytes = 0;    // sum of all tensors
  uint64_t chunk_bytes = 0;
  std::optional<uint64_t> manifest_digest;  // over names, dtypes, shapes and tensor digests; set once it is committed
  uint64_t converted_bytes = 0;             // part of `bytes` converted so far

  uint64_t declared_tensors = 0;  // native tensors
  uint64_t declared_bytes = 0;    // native bytes that some output needs, of the dtypes that are sent
  uint64_t received_bytes = 0;    // part of declared_bytes received so far

  uint32_t world = 0;  // number of trainer ranks that push it together
  uint32_t joined_ranks = 0;
  uint32_t committed_ranks = 0;

  bool spooled = false;  // on the service's disk: it outlives the service's process
  bool mapped = false;   // mapped from disk: it takes no memory of the budget

  // Nanoseconds since the Unix epoch, for people. 0: not yet.
  int64_t opened_at_ns = 0;
  int64_t closed_at_ns = 0;
  // Nanoseconds by a steady clock: until all ranks had declared their shards; until the last bytes arrived; of
  // converting and digesting, summed over threads; and from opening to commit, abort, or now.
  uint64_t open_ns = 0;
  uint64_t receive_ns = 0;
  uint64_t convert_ns = 0;
  uint64_t elapsed_ns = 0;
};

}  // namespace refit
