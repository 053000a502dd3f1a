// Streaming calls that end at once with an error.
#pragma once

#include <grpcpp/support/server_callback.h>

#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "common/net/status.h"

namespace refit {

// A streaming call that ends at once with `status`. Owns itself until gRPC is done with it.
template <typename Reactor>
class RefusedCall final : public Reactor {
 public:
  static Reactor* Start(const absl::Status& status) {
    auto call = std::make_unique<RefusedCall>();
    RefusedCall& started = *call;
    started.self_ = std::move(call);
    started.Finish(ToGrpc(status));
    return &started;
  }

  void OnDone() override { const std::unique_ptr<RefusedCall> ends_here = std::move(self_); }

 private:
  std::unique_ptr<RefusedCall> self_;
};

// For calls that end because the service shuts down.
inline absl::Status ShuttingDown() { return absl::UnavailableError("the service is shutting down"); }

}  // namespace refit
