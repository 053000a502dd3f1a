// The worker's client for single steps: watching versions, pulling them, reporting. refit/worker.h does all of it by
// itself.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "refit/channel_options.h"
#include "refit/pull.h"
#include "refit/version_summary.h"
#include "refit/watch.h"
#include "refit/worker_report.h"

namespace refit {

struct SubscriberConnection;

// A worker's connection to a refit service. With several addresses (ChannelOptions::address) it uses the nearest
// service that serves it, and goes to the next one by itself; an error then gives each address and its reason.
//
// Order of calls: Connect, then any of the others, in any order; after Cancel none succeeds.
// Threads: thread-safe; pulls, watches and reports may run at the same time.
// Ownership: what a pull returns, and watches and presences, may outlive the subscriber. It owns the pool that pulls
// without a sink get their memory from.
// Units: bytes; times as their types say.
// Errors of every call, besides those that it names:
//   UNAVAILABLE          the service is not there, or the connection broke
//   CANCELLED            Cancel was called
//   FAILED_PRECONDITION  this is a child of a fork. The parent's connection stays, and what was pulled before keeps its
//                        values in both
//   UNAUTHENTICATED, PERMISSION_DENIED  the service asks for a token or a role that this connection lacks
class Subscriber {
 public:
  // Connects. UNAVAILABLE, naming address and reason, if it does not within ChannelOptions::connect_timeout;
  // INVALID_ARGUMENT for an address or files that cannot be used.
  static absl::StatusOr<std::unique_ptr<Subscriber>> Connect(const ChannelOptions& options);
  ~Subscriber();

  // Pulls into `sink`. OK only when every selected tensor came, every chunk, tensor and manifest digest matched, and
  // the version is committed. Nothing else may be installed. Errors, besides those of the sink:
  //   NOT_FOUND            no such model, version or run; a tensor that it lacks; a filter or rule that fits no tensor
  //   INVALID_ARGUMENT     a bad filter, rule or box; a sink whose memory is not of the tensor's size
  //   ABORTED              the trainer gave the version up during the pull, or pushed another under its number
  //   FAILED_PRECONDITION  the version is retired (its memory was given to newer ones), or was aborted before the call
  //   DEADLINE_EXCEEDED    nothing came for PullOptions::idle_timeout
  //   DATA_LOSS            a digest does not match; names the tensor
  //   RESOURCE_EXHAUSTED   no memory for the tensors, or a limit of the service, which the message names
  //   INTERNAL             the service breaks the protocol
  absl::StatusOr<PullResult> Pull(const PullOptions& options, TensorSink& sink);

  // Pulls into host memory of this subscriber's pool: tensors that are let go of make room, already warm, for a later
  // version's. From a service on the same host large tensors are not copied but mapped where it has them (see
  // Transport); let go of them before long, since it cannot use that memory again meanwhile.
  absl::StatusOr<PulledVersion> Pull(const PullOptions& options);

  // Calls `on_event` with the state of each version and with every change, from this thread, until it returns false
  // (then OK), or the service cannot be reached any more. If only the stream is cut, as proxies do with those that
  // carry nothing for a while, the watch goes on, and states come again. `idle_timeout` zero: waits without end for the
  // next change; keepalive pings still notice a dead service. Errors as VersionWatch::Next.
  absl::Status Watch(const WatchOptions& options, const std::function<bool(const VersionSummary&)>& on_event,
                     std::chrono::milliseconds idle_timeout = std::chrono::milliseconds::zero());

  // The same, to be asked. The service counts this worker as connected as long as the watch lives. Errors come from its
  // Next.
  std::unique_ptr<VersionWatch> StartWatch(const WatchOptions& options);

  // Shows the service that this worker is present, in addition to its other calls.
  std::unique_ptr<WorkerPresence> StartPresence(const std::string& model, const std::string& worker);

  // Reports to the service how far this worker is. Without a life, the report has this subscriber's. Returns true if
  // the service never had that version: it is of another run of the trainer, or was lost when the service was
  // restarted. INVALID_ARGUMENT for a report without worker, version or phase; DEADLINE_EXCEEDED after 10 s.
  absl::StatusOr<bool> Report(const WorkerReport& report);

  // Ends all pulls and watches of this subscriber, and all later ones, with CANCELLED. Any thread may call it.
  void Cancel();

 private:
  explicit Subscriber(std::shared_ptr<SubscriberConnection> connection);
  std::shared_ptr<SubscriberConnection> connection_;  // its pulls, watches and presences also hold it
};

}  // namespace refit
