// A stream from the service, which Subscriber::Cancel cancels.
#pragma once

#include <google/protobuf/message_lite.h>

#include <chrono>
#include <memory>
#include <string>

#include "client/calls/active_calls.h"
#include "client/worker/subscriber_connection.h"
#include "common/net/byte_buffer.h"
#include "common/net/raw_reader.h"

namespace refit {

// The stream lives from construction to destruction. Use it from one thread at a time, as RawReader.
class SubscriberStream {
 public:
  SubscriberStream(const SubscriberConnection& connection, const std::string& method,
                   const google::protobuf::MessageLite& request, std::chrono::milliseconds timeout)
      : reader_(RawReader::Prepare(connection.channel, method)),
        entry_(connection.calls, [this] { reader_->Cancel(); }) {
    reader_->Begin(Serialize(request), timeout);
  }

  RawReader* operator->() { return reader_.get(); }

 private:
  const std::unique_ptr<RawReader> reader_;
  const ActiveCalls::Entry entry_;
};

}  // namespace refit
