// The parts of a running service.
#pragma once

#include <grpcpp/server.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "common/net/credentials.h"
#include "common/net/grpc_wakeups.h"
#include "common/process/closed_in_children.h"
#include "refit/server_options.h"
#include "server/access/admission.h"
#include "server/descriptors/descriptor_table.h"
#include "server/fleet/relay_service.h"
#include "server/fleet/service_ancestry.h"
#include "server/fleet/upstream.h"
#include "server/fleet/worker_registry.h"
#include "server/process/work_queue.h"
#include "server/pull/pull_context.h"
#include "server/pull/pull_service.h"
#include "server/push/push_context.h"
#include "server/push/push_service.h"
#include "server/spool/spool.h"
#include "server/store/version_store.h"
#include "server/unix_sockets.h"
#include "server/watch/health_endpoint.h"
#include "server/watch/health_service.h"
#include "server/watch/inspect_service.h"
#include "server/watch/metrics_endpoint.h"
#include "server/watch/observed.h"

namespace refit {

// Made from options that passed CheckOptions. Call OpenSpool, Listen, then StartMetrics and StartHealth, once each.
// Members are destroyed in reverse order: first gRPC, then the services, then the converting threads, then the objects
// that all of them share.
struct ServerParts {
  ServerParts(const ServerOptions& options, std::shared_ptr<const Authorizer> authorizer,
              std::shared_ptr<grpc::ServerCredentials> made);

  // Errors as Spool::Open.
  absl::Status OpenSpool(const ServerOptions& options);
  // Begins to serve calls. Returns the addresses, with the ports that were chosen. UNAVAILABLE, naming the address, if
  // it cannot listen on one of them.
  absl::StatusOr<std::vector<std::string>> Listen(const ServerOptions& options);
  // Errors as MetricsEndpoint::Start and HealthEndpoint::Start. They do nothing unless the options request it.
  absl::Status StartMetrics(const ServerOptions& options);
  absl::Status StartHealth(const ServerOptions& options);

  // Until the service is shut down, a child of a fork closes the sockets that listen on this address. Otherwise the
  // port would stay taken after the service.
  void CloseInChildren(absl::string_view address);
  void KeepInChildren();

  const std::shared_ptr<grpc::ServerCredentials> credentials;
  const std::shared_ptr<GrpcWakeups> wakeups = GrpcWakeups::Watch();
  Admission admission;
  VersionStore store;
  std::unique_ptr<Spool> spool;  // set before the first call; null: nothing is kept on disk
  WorkerRegistry workers;
  ServiceAncestry ancestry;
  DescriptorTable descriptors;
  PushContext pushes;
  PullContext pulls;
  WorkQueue convert;
  RelayContext relays{admission, workers, ancestry};
  std::unique_ptr<Upstream> upstream;  // set before the first call; null: this is a root
  Observed observed;
  PushService push{pushes};
  PullService pull{pulls};
  RelayService relay{relays};
  InspectService inspect{observed};
  HealthService probes;
  UnixSockets unix_sockets;
  std::unique_ptr<grpc::Server> server;
  std::unique_ptr<MetricsEndpoint> metrics;  // null: metrics are not served
  std::unique_ptr<HealthEndpoint> health;    // null: only on the service's own address

  absl::Mutex mutex;
  std::vector<std::unique_ptr<ClosedInChildren>> listening ABSL_GUARDED_BY(mutex);
};

}  // namespace refit
