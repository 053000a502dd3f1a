// A relay: a worker of the service above, and a service for the workers below.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "client/calls/active_calls.h"
#include "client/calls/stop_flag.h"
#include "refit/server_options.h"
#include "refit/v1/relay.pb.h"
#include "server/fleet/upstream.h"
#include "server/relay/above.h"
#include "server/server_parts.h"

namespace refit {

// Attends at the service above, in a thread of its own; as long as that lasts, versions come down and reports go up.
// Threads: this one, one that watches, one that reports, and one for each model. Thread-safe. `parts` must outlive it.
class Relay final : public Upstream {
 public:
  Relay(ServerParts& parts, const ServerOptions& options);
  ~Relay() override { Stop(); }

  void Start() override;
  void Stop() override;
  v1::RelayStatus Status() const override;

 private:
  void Run();
  absl::Status Serve(std::shared_ptr<SubscriberConnection> connection);
  absl::Status Attend(const Above& above, absl::FunctionRef<absl::Status(const v1::Ancestry&)> hear);
  absl::Status CheckNoLoop(const v1::Ancestry& ancestry) const;
  void SetConnected() ABSL_LOCKS_EXCLUDED(mutex_);
  void SetLost(const absl::Status& why) ABSL_LOCKS_EXCLUDED(mutex_);

  ServerParts& parts_;
  const ChannelOptions upstream_;
  const uint32_t upstream_streams_;
  Received received_;
  StopFlag stop_;

  mutable absl::Mutex mutex_;
  std::shared_ptr<ActiveCalls> calls_ ABSL_GUARDED_BY(mutex_);  // of the present connection
  bool connected_ ABSL_GUARDED_BY(mutex_) = false;
  bool reached_ ABSL_GUARDED_BY(mutex_) = false;  // it was connected once
  std::string error_ ABSL_GUARDED_BY(mutex_) = "not connected yet";
  int64_t changed_at_ns_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace refit
