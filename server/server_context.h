// What the services share: one store, one fleet, one pool of threads.
#pragma once

#include <grpcpp/server_context.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "common/adapters/python_regex.h"
#include "common/net/channel.h"
#include "common/net/wall_clock.h"
#include "server/authorizer.h"
#include "server/counters.h"
#include "server/end_table.h"
#include "server/event_log.h"
#include "server/part_table.h"
#include "server/peer_streams.h"
#include "server/spool.h"
#include "server/version_store.h"
#include "server/work_queue.h"
#include "server/worker_registry.h"

namespace refit {

// Limits on what a peer may ask for; beyond them RESOURCE_EXHAUSTED.
struct Limits {
  uint64_t max_tensors_per_version = 1'000'000;
  uint64_t max_name_bytes = kMaxNameBytes;
  uint32_t max_dimensions = kMaxRank;                        // of a tensor; at most kMaxRank
  uint64_t max_regex_bytes = PythonRegex::kMaxPatternBytes;  // at most that
  uint32_t max_rules = 1024;                                 // layout rules of a request
  uint32_t max_streams_per_peer = 4096;                      // of all kinds, see PeerStreams
  uint32_t max_workers = WorkerRegistry::kMaxWorkers;        // that pull or watch; at most that
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

inline std::shared_ptr<const Buffer> MakeSharedSample() {
  constexpr size_t kLeastShared = 2 << 20;
  absl::StatusOr<std::shared_ptr<Buffer>> sample = Buffer::Allocate(kLeastShared, Backing::kShared);
  return sample.ok() && (*sample)->shared_fd() >= 0 ? *std::move(sample) : nullptr;
}

inline StoreOptions Reporting(StoreOptions options, const EventLog& log) {
  if (options.on_unshared != nullptr) return options;
  options.on_unshared = [log](const absl::Status& why) {
    log.Warning("memory for tensors is no longer shared; workers on this host get it over the connection",
                {{"reason", std::string(why.message())}});
  };
  return options;
}

// Members are thread-safe or immutable. Outlives every call.
struct ServerState {
  ServerState(const StoreOptions& store_options, const Limits& limit_options, int convert_threads, EventLog event_log,
              std::shared_ptr<const Authorizer> call_authorizer)
      : limits(limit_options),
        log(std::move(event_log)),
        authorizer(std::move(call_authorizer)),
        store(Reporting(store_options, log)),
        parts(limit_options.packed_bytes),
        scratch(2 * store_options.chunk_bytes * static_cast<uint64_t>(convert_threads)),
        workers(limit_options.max_workers),
        peer_streams(limit_options.max_streams_per_peer),
        shared_sample(store_options.shared_memory ? MakeSharedSample() : nullptr),
        convert(convert_threads) {}

  const Limits limits;
  const EventLog log;
  const std::shared_ptr<const Authorizer> authorizer;
  VersionStore store;
  std::unique_ptr<Spool> spool;  // set before the first call; null: nothing is kept on disk
  PartTable parts;
  BufferPool scratch;  // blocks of a chunk, about one for each thread that converts
  EndTable leases;     // of memory that workers have mapped
  EndTable watches;    // that would never end by themselves
  WorkerRegistry workers;
  PeerStreams peer_streams;
  // For workers to try whether they can map this service's memory; null if it shares none.
  const std::shared_ptr<const Buffer> shared_sample;
  Counters counters;
  std::atomic<uint32_t> pushes{0};            // push streams open
  std::atomic<uint32_t> pulls{0};             // pull streams open
  const int64_t started_at_ns = UnixNanos();  // the time of day
  const std::chrono::steady_clock::time_point started_at = std::chrono::steady_clock::now();
  WorkQueue convert;  // last: its threads end first
};

// Comes first in every call: see Authorizer::Check. Refusals are logged.
inline absl::Status Authorize(ServerState& state, const grpc::CallbackServerContext& context, Role needed) {
  absl::Status status = state.authorizer->Check(context, needed);
  state.counters.refused_calls.Add(status);
  if (!status.ok()) state.log.Warning("call refused", {{"peer", context.peer()}, {"error", status.ToString()}});
  return status;
}

// Who a request for a model's versions comes from: the name that the worker gave itself, or its address.
template <typename Request>
WorkerId WorkerOf(const Request& request, const grpc::CallbackServerContext& context) {
  return {request.model(), request.worker().empty() ? context.peer() : Printable(request.worker()), request.life()};
}

}  // namespace refit
