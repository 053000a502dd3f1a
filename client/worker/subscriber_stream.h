// A stream from the service, which Subscriber::Cancel cancels.
#pragma once

#include <google/protobuf/message_lite.h>
#include <grpcpp/support/byte_buffer.h>

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "client/calls/active_calls.h"
#include "client/worker/subscriber_connection.h"
#include "common/net/byte_buffer.h"
#include "common/net/raw_reader.h"

namespace refit {

// The stream lives from construction to destruction. Use it from one thread at a time, as RawReader. The connection
// must outlive it.
class SubscriberStream {
 public:
  SubscriberStream(const SubscriberConnection& connection, std::shared_ptr<const Route> route,
                   const std::string& method, const google::protobuf::MessageLite& request,
                   std::chrono::milliseconds timeout)
      : connection_(connection),
        route_(std::move(route)),
        reader_(RawReader::Prepare(route_->channel, method)),
        entry_(connection.calls, [this] { reader_->Cancel(); }) {
    reader_->Begin(Serialize(request), timeout);
  }
  // At the service in use.
  SubscriberStream(const SubscriberConnection& connection, const std::string& method,
                   const google::protobuf::MessageLite& request, std::chrono::milliseconds timeout)
      : SubscriberStream(connection, connection.routes->Present(), method, request, timeout) {}

  const Route& route() const { return *route_; }
  RawReader* operator->() { return reader_.get(); }

  // As RawReader::Read, for a stream that stands for long: looks for a nearer service meanwhile. UNAVAILABLE as soon as
  // another connection is to be used.
  absl::StatusOr<std::optional<grpc::ByteBuffer>> ReadWhileInUse(std::chrono::milliseconds timeout);

 private:
  const SubscriberConnection& connection_;
  const std::shared_ptr<const Route> route_;
  const std::unique_ptr<RawReader> reader_;
  const ActiveCalls::Entry entry_;
};

}  // namespace refit
