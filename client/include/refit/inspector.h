// Looks into a refit service: thin, typed calls of InspectService.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "refit/channel_options.h"
#include "refit/fork_guard.h"
#include "refit/v1/inspect.pb.h"

namespace refit {

// Thread-safe. Every call ends within `timeout` (DEADLINE_EXCEEDED); errors as inspect.proto says; in a child
// of a fork FAILED_PRECONDITION.
class Inspector {
 public:
  static absl::StatusOr<std::unique_ptr<Inspector>> Connect(
      const ChannelOptions& options, std::chrono::milliseconds timeout = std::chrono::seconds(30));
  ~Inspector();

  absl::StatusOr<v1::GetServerInfoResponse> ServerInfo();
  absl::StatusOr<v1::ListVersionsResponse> Versions(const std::string& model = "");
  absl::StatusOr<v1::ListWorkersResponse> Workers(const std::string& model = "");
  absl::StatusOr<v1::DescribeVersionResponse> DescribeVersion(const v1::DescribeVersionRequest& request);
  absl::StatusOr<v1::DescribeTensorResponse> DescribeTensor(const v1::DescribeTensorRequest& request);

  // Ends every call with CANCELLED, and every one that is begun later. From any thread.
  void Cancel();

 private:
  struct State;
  explicit Inspector(OwnedByProcess<State> state);
  OwnedByProcess<State> state_;
};

}  // namespace refit
