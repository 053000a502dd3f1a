#include "client/worker/run_pull.h"

#include "client/worker/pull_run.h"
#include "client/worker/spare_subscribers.h"
#include "client/worker/striped_pull.h"
#include "common/limits/within_memory.h"

namespace refit {
namespace {

// Where memory is mapped, nothing is moved.
bool MayStripe(const SubscriberConnection& connection, const PullOptions& options) {
  return options.streams != 1 && connection.transport != Transport::kSharedMemory &&
         !connection.TryToShare(*connection.routes->Present()).ok();
}

}  // namespace

absl::StatusOr<PullResult> RunPull(const std::shared_ptr<SubscriberConnection>& connection, const PullOptions& options,
                                   TensorSink& sink) {
  return WithinMemory("a pull", [&] {
    if (MayStripe(*connection, options)) return StripedPull(connection, *connection->spares, options, sink).Run();
    return PullRun(connection, options, sink).Run();
  });
}

}  // namespace refit
