// What the Unix sockets of a service need besides gRPC.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "refit/server_options.h"
#include "server/descriptors/descriptor_endpoint.h"
#include "server/descriptors/descriptor_table.h"

namespace refit {

// Whether a service with these options passes descriptors of shared memory.
bool PassesDescriptors(const ServerOptions& options);

// Thread-safe.
class UnixSockets {
 public:
  // Call it before gRPC listens. It begins to pass descriptors beside each socket. UNAVAILABLE, naming the path, if
  // that is not free: gRPC itself would take the place of a service that lives.
  absl::Status Open(const ServerOptions& options, DescriptorTable& descriptors);
  // Call it once gRPC listens. UNAVAILABLE if the permissions cannot be set.
  static absl::Status SetModes(const ServerOptions& options);
  // Passes no more descriptors. Idempotent.
  void Close();

 private:
  absl::Mutex mutex_;
  std::vector<std::unique_ptr<DescriptorEndpoint>> endpoints_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace refit
