// The services that a subscriber may use. It uses one at a time.
#pragma once

#include <grpcpp/channel.h>

#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/calls/active_calls.h"
#include "client/worker/candidates.h"
#include "refit/channel_options.h"

namespace refit {

// A service that was reached. Whoever began something there keeps it. Immutable.
struct Route {
  std::string address;
  std::shared_ptr<grpc::Channel> channel;
};

// A route that failed is left, and what is needed next connects anew, to the nearest service that answers. gRPC could
// connect a broken channel again by itself, but it does not notice each fault: after damaged bytes a connection may
// carry nothing and yet seem alive. Thread-safe; calls may wait for a connection.
class Routes {
 public:
  // Connects to the nearest service that answers. Errors as refit::Connect; with several addresses UNAVAILABLE gives
  // each one's reason. Once connected, only `calls` cancel what connects.
  static absl::StatusOr<std::unique_ptr<Routes>> Connect(const ChannelOptions& options,
                                                         std::shared_ptr<ActiveCalls> calls);

  // Whether there may be several services. If not, none is nearer, and none can stand in.
  bool several() const { return several_; }

  // The route in use, unless it is in `except`. Otherwise the nearest one that can be reached; if none was in use, that
  // is. Each address is tried once. UNAVAILABLE with each one's reason; NOT_FOUND if `except` has them all.
  absl::StatusOr<std::shared_ptr<const Route>> Take(const Candidates::Addresses& except = {});

  // The same; but if none can be reached, the last one, on which calls then fail.
  std::shared_ptr<const Route> Present();

  // For new work: goes back to a nearer service that may answer again.
  void ReturnToNearest();

  // This route failed. It rests, so that others are taken before.
  void Leave(const Route& route);

  bool IsInUse(const Route& route);

 private:
  using Clock = std::chrono::steady_clock;

  Routes(const ChannelOptions& options, std::shared_ptr<ActiveCalls> calls);

  absl::Status ConnectInitially();
  // The functions below need mutex_ held.
  absl::StatusOr<std::shared_ptr<const Route>> Choose(const Candidates::Addresses& except,
                                                      std::chrono::milliseconds patience);
  absl::StatusOr<std::shared_ptr<const Route>> Reach(const Candidate& candidate, std::chrono::milliseconds patience);
  void AskZone(const Route& route, std::chrono::milliseconds patience);
  void LookUpNames(std::chrono::milliseconds patience);

  ChannelOptions options_;
  const std::shared_ptr<ActiveCalls> calls_;
  const std::vector<std::string> listed_;
  const bool several_;

  std::mutex mutex_;
  // Guarded by mutex_.
  std::chrono::milliseconds patience_;  // with one of several addresses; doubles while none answers
  Candidates candidates_;
  std::vector<std::string> not_found_;  // why names of the list lead nowhere
  std::optional<Clock::time_point> looked_up_at_;
  std::shared_ptr<const Route> in_use_;  // null: none
  std::shared_ptr<const Route> last_;    // that was in use
};

}  // namespace refit
