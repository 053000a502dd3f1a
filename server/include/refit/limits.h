// What a service allows its peers.
#pragma once

#include <chrono>
#include <cstdint>

#include "refit/shape.h"
#include "refit/sizes.h"
#include "refit/tensor_spec.h"

namespace refit {

// Workers that a fleet may have.
inline constexpr uint32_t kMaxWorkers = 4'000;

// Limits on what a peer may ask for; beyond them RESOURCE_EXHAUSTED.
struct Limits {
  uint64_t max_tensors_per_version = 1'000'000;
  uint64_t max_name_bytes = kMaxNameBytes;
  uint32_t max_dimensions = kMaxRank;         // of a tensor; at most kMaxRank
  uint64_t max_regex_bytes = kMaxRegexBytes;  // at most that
  uint32_t max_rules = 1024;                  // layout rules of a request
  uint32_t max_streams_per_peer = 4096;       // of all kinds, see PeerStreams
  uint32_t max_workers = kMaxWorkers;         // that pull or watch; at most that
  uint32_t max_pulls = 1024;
  uint32_t max_pushes = 256;
  uint32_t max_ranks = 1024;  // that push a version together
  int max_message_bytes = kMaxMessageBytes;
  // Memory for packed chunks of parts of tensors, besides the store's.
  uint64_t packed_bytes = uint64_t{256} << 20;
  // Bytes that the ranks of a version may have under way, all together; each rank at least two chunks.
  uint64_t push_window_bytes = uint64_t{64} << 20;
  // A trainer or worker whose process or network does not answer any more is dropped after so long: what it had open is
  // aborted, and its memory freed. At least a second.
  std::chrono::milliseconds peer_timeout = std::chrono::seconds(10);
  // A push whose trainer answers, but says nothing for so long, is aborted. Optimizer steps and checkpoints pause it
  // for minutes; NCCL gives up on a rank that is stuck after 10 minutes.
  std::chrono::milliseconds push_idle_timeout = std::chrono::minutes(15);
  // A sharded push whose ranks have not all declared so long after the first is aborted. The last may have written a
  // checkpoint first.
  std::chrono::milliseconds rank_join_timeout = std::chrono::minutes(5);
  // A streamed version of which workers take nothing for so long, while the trainer waits for them, is aborted.
  std::chrono::milliseconds worker_timeout = std::chrono::seconds(60);
  // A worker that waits for the trainer, and a rank that waits for others, hears from the service this often.
  std::chrono::milliseconds waiting_interval = std::chrono::seconds(5);
};

}  // namespace refit
