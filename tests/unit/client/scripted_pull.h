// A pull service that sends exactly what a test says, valid or not.
#pragma once

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "common/net/byte_buffer.h"
#include "refit/v1/pull.grpc.pb.h"

namespace refit {

struct PullScript {
  std::vector<grpc::ByteBuffer> messages;
  grpc::Status status;
  // Stay silent after the messages instead of ending the stream.
  bool hangs = false;
};

class ScriptedPull final : public v1::PullService::WithRawCallbackMethod_Pull<
                               v1::PullService::WithRawCallbackMethod_WatchVersions<v1::PullService::Service>> {
 public:
  void Say(PullScript script) {
    const std::lock_guard lock(mutex_);
    script_ = std::move(script);
  }

  // The last request, of either kind.
  grpc::ByteBuffer request() {
    const std::lock_guard lock(mutex_);
    return request_;
  }

  grpc::ServerWriteReactor<grpc::ByteBuffer>* Pull(grpc::CallbackServerContext*,
                                                   const grpc::ByteBuffer* request) override {
    return Start(*request);
  }
  grpc::ServerWriteReactor<grpc::ByteBuffer>* WatchVersions(grpc::CallbackServerContext*,
                                                            const grpc::ByteBuffer* request) override {
    return Start(*request);
  }

 private:
  class Reactor final : public grpc::ServerWriteReactor<grpc::ByteBuffer> {
   public:
    explicit Reactor(PullScript script) : script_(std::move(script)) { Next(); }

    void OnWriteDone(bool ok) override {
      if (ok) {
        Next();
      } else {
        End(grpc::Status::CANCELLED);
      }
    }
    void OnCancel() override { End(grpc::Status::CANCELLED); }
    void OnDone() override { const std::unique_ptr<Reactor> self(this); }

   private:
    void Next() {
      if (next_ < script_.messages.size()) {
        StartWrite(&script_.messages[next_++]);
      } else if (!script_.hangs) {
        End(script_.status);
      }
    }
    void End(const grpc::Status& status) {
      if (!ended_.exchange(true)) Finish(status);
    }

    PullScript script_;
    size_t next_ = 0;
    std::atomic<bool> ended_ = false;
  };

  Reactor* Start(const grpc::ByteBuffer& request) {
    const std::lock_guard lock(mutex_);
    request_ = request;
    return std::make_unique<Reactor>(script_).release();
  }

  std::mutex mutex_;
  PullScript script_;
  grpc::ByteBuffer request_;
};

}  // namespace refit
