// What a version is and how far it has come, as the service tells it. Field by field v1.VersionSummary of types.proto.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace refit {

// OPEN -> COMMITTED -> RETIRED, or OPEN -> ABORTED. Values equal refit.v1.VersionState on the wire.
enum class VersionState {
  kUnknown = 0,    // of a newer service
  kOpen = 1,       // its trainer is still pushing; workers may stage it, and must not install it yet
  kCommitted = 2,  // whole, immutable, digested
  kRetired = 3,    // was committed; its memory was given to newer versions
  kAborted = 4,    // was never committed and never will be
};

// A plain value.
struct VersionSummary {
  std::string model;
  uint64_t version = 0;        // chosen by the trainer, grows within a model and a trainer_epoch
  uint64_t trainer_epoch = 0;  // which run of the trainer it is of
  VersionState state = VersionState::kUnknown;
  std::string adapter;         // what converts its native tensors, such as "gemma4_moe"
  bool installs_held = false;  // workers stage it, and install it once the trainer lets them
  std::string abort_reason;

  uint64_t tensors = 0;  // Hugging Face tensors, in manifest order
  uint64_t bytes = 0;    // of all of them together
  uint64_t chunk_bytes = 0;
  std::optional<uint64_t> manifest_digest;  // of names, dtypes, shapes and tensor digests; once it is committed
  uint64_t converted_bytes = 0;             // of `bytes`, so far

  uint64_t declared_tensors = 0;  // native tensors
  uint64_t declared_bytes = 0;    // native bytes that some output needs
  uint64_t received_bytes = 0;    // of those, so far

  uint32_t world = 0;  // trainer ranks that push it together
  uint32_t joined_ranks = 0;
  uint32_t committed_ranks = 0;

  bool spooled = false;  // on the service's disk: it outlives the service's process
  bool mapped = false;   // read from there: it takes no memory of the budget

  // Nanoseconds since the Unix epoch, for people; 0: not yet.
  int64_t opened_at_ns = 0;
  int64_t closed_at_ns = 0;
  // Nanoseconds by a steady clock: until all ranks had declared their shards, until the last bytes came, of converting
  // and digesting (summed over threads), and from opening to commit, abort, or now.
  uint64_t open_ns = 0;
  uint64_t receive_ns = 0;
  uint64_t convert_ns = 0;
  uint64_t elapsed_ns = 0;
};

}  // namespace refit
