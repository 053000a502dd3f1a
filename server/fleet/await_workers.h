// Lets a trainer wait until its workers have a version.
#pragma once

#include <grpcpp/support/server_callback.h>

#include "refit/v1/push.pb.h"
#include "server/fleet/worker_registry.h"
#include "server/process/end_table.h"
#include "server/store/version_store.h"

namespace refit {

// Answers PushService.AwaitWorkers; see push.proto. All but `request` must outlive the call.
grpc::ServerUnaryReactor* StartAwaitWorkers(VersionStore& store, WorkerRegistry& workers, EndTable& ends,
                                            const v1::AwaitWorkersRequest& request, v1::AwaitWorkersResponse& response);

}  // namespace refit
