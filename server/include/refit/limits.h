// Limits of a service on its peers.
#pragma once

#include <chrono>
#include <cstdint>

#include "refit/shape.h"
#include "refit/sizes.h"
#include "refit/tensor_spec.h"

namespace refit {

// Largest number of workers in a fleet.
inline constexpr uint32_t kMaxWorkers = 4'000;

// Limits on requests of a peer. Requests beyond them get RESOURCE_EXHAUSTED.
struct Limits {
  uint64_t max_tensors_per_version = 1'000'000;
  uint64_t max_name_bytes = kMaxNameBytes;
  uint32_t max_dimensions = kMaxRank;         // of a tensor; not above kMaxRank
  uint64_t max_regex_bytes = kMaxRegexBytes;  // not above kMaxRegexBytes
  uint32_t max_rules = 1024;                  // layout rules of a request
  uint32_t max_streams_per_peer = 4096;       // of all kinds; see PeerStreams
  uint32_t max_workers = kMaxWorkers;         // that pull or watch; not above kMaxWorkers
  uint32_t max_pulls = 1024;
  uint32_t max_pushes = 256;
  uint32_t max_ranks = 1024;  // ranks that push a version together
  int max_message_bytes = kMaxMessageBytes;
  // Memory for packed chunks of parts of tensors, in addition to the store's memory.
  uint64_t packed_bytes = uint64_t{256} << 20;
  // Memory for encoded deltas, in addition to the store's memory: each is encoded once for all workers.
  uint64_t delta_bytes = uint64_t{256} << 20;
  // More of it, for deltas of versions that are gone: from them and later ones, deltas for workers that are several
  // versions behind are composed.
  uint64_t delta_history_bytes = 0;
  // Bytes that all ranks of a version together may have sent without acknowledgement. Each rank may send at least two
  // chunks.
  uint64_t push_window_bytes = uint64_t{64} << 20;
  // A trainer or worker whose process or network does not answer for this long is dropped: what it had open is aborted,
  // and its memory freed. At least one second.
  std::chrono::milliseconds peer_timeout = std::chrono::seconds(10);
  // A push whose trainer answers, but sends nothing for this long, is aborted. Optimizer steps and checkpoints may
  // pause a push for minutes. NCCL gives up on a stuck rank after 10 minutes.
  std::chrono::milliseconds push_idle_timeout = std::chrono::minutes(15);
  // A sharded push is aborted if not all ranks have declared their shards this long after the first one. The last rank
  // may have written a checkpoint first.
  std::chrono::milliseconds rank_join_timeout = std::chrono::minutes(5);
  // A streamed version is aborted if its trainer waits for workers, and these pull nothing for this long.
  std::chrono::milliseconds worker_timeout = std::chrono::seconds(60);
  // How often the service sends a message to a worker that waits for the trainer, and to a rank that waits for others.
  std::chrono::milliseconds waiting_interval = std::chrono::seconds(5);
};

}  // namespace refit
