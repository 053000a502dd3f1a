// Listens to a stream of the service above.
#pragma once

#include <google/protobuf/message_lite.h>

#include <chrono>
#include <optional>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/worker/no_timeout.h"
#include "client/worker/subscriber_stream.h"
#include "common/net/byte_buffer.h"
#include "server/relay/above.h"

namespace refit {

// Pauses between attempts to reach the service above.
inline constexpr std::chrono::milliseconds kFirstPauseAbove{100};
inline constexpr std::chrono::seconds kLongestPauseAbove{5};
// Of a pull or a manifest above. A service that waits for its trainer says so every few seconds; what says nothing for
// so long was damaged on the way, and comes again over another connection.
inline constexpr std::chrono::seconds kLongestSilenceAbove{20};

// Passes each message on, until the stream ends or `hear` fails. Returns why; never OK.
template <typename Message>
absl::Status ListenAbove(const Above& above, const std::string& method, const google::protobuf::MessageLite& request,
                         absl::FunctionRef<absl::Status(const Message&)> hear) {
  constexpr std::chrono::seconds kStartTimeout{60};
  SubscriberStream stream(*above.connection, method, request, kStartTimeout);
  while (true) {
    const absl::StatusOr<std::optional<grpc::ByteBuffer>> bytes = stream.ReadWhileInUse(kNoTimeout);
    if (!bytes.ok()) return bytes.status();
    if (!bytes->has_value()) {
      const absl::Status status = stream->Finish(kStartTimeout);
      above.connection->routes->Leave(stream.route());
      return status.ok() ? absl::UnavailableError("the service above ended the stream") : status;
    }
    Message message;
    if (absl::Status status = Parse(**bytes, message); !status.ok()) return status;
    if (absl::Status status = hear(message); !status.ok()) return status;
  }
}

}  // namespace refit
