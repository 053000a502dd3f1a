// Inspects a refit service: typed calls of InspectService.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "refit/channel_options.h"
#include "refit/fork_guard.h"
#include "refit/v1/inspect.pb.h"

namespace refit {

// A connection to a refit service, for looking only. Answers are the protobuf messages of inspect.proto: what grpcurl
// shows, field for field.
//
// Order of calls: Connect, then any of the others, in any order; after Cancel none succeeds.
// Threads: thread-safe.
// Ownership: answers are the caller's.
// Units: each field's, as inspect.proto says: bytes, and nanoseconds where its name ends in _ns.
// Errors, of every call where nothing else is said:
//   UNAVAILABLE          the service is not there, or the connection broke; DescribeTensor: not converted yet
//   DEADLINE_EXCEEDED    it did not answer within the timeout that Connect was given
//   CANCELLED            Cancel was called
//   UNAUTHENTICATED, PERMISSION_DENIED  the service asks for a token or a role that this connection lacks
//   FAILED_PRECONDITION  this is a child of a fork; DescribeTensor: the version holds no data any more
//   NOT_FOUND            Describe...: no such version or tensor, or a filter that selects none
//   INVALID_ARGUMENT     DescribeVersion: a bad filter or page token
//   RESOURCE_EXHAUSTED   DescribeTensor: larger than the service computes statistics for (ask with skip_statistics)
class Inspector {
 public:
  // Connects. `timeout` is for each later call. Errors as Subscriber::Connect.
  static absl::StatusOr<std::unique_ptr<Inspector>> Connect(
      const ChannelOptions& options, std::chrono::milliseconds timeout = std::chrono::seconds(30));
  ~Inspector();

  absl::StatusOr<v1::GetServerInfoResponse> ServerInfo();
  // The versions of one model, or of all if it is empty.
  absl::StatusOr<v1::ListVersionsResponse> Versions(const std::string& model = "");
  absl::StatusOr<v1::ListWorkersResponse> Workers(const std::string& model = "");
  absl::StatusOr<v1::DescribeVersionResponse> DescribeVersion(const v1::DescribeVersionRequest& request);
  absl::StatusOr<v1::DescribeTensorResponse> DescribeTensor(const v1::DescribeTensorRequest& request);

  // Ends every call, and every later one, with CANCELLED. Any thread may call it.
  void Cancel();

 private:
  struct State;
  explicit Inspector(OwnedByProcess<State> state);
  OwnedByProcess<State> state_;
};

}  // namespace refit
