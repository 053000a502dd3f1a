// A gRPC server on a free loopback port, whose services a test writes itself.
#pragma once

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <initializer_list>
#include <memory>
#include <string>

#include "common/net/channel.h"

namespace refit {

class LoopbackServer {
 public:
  LoopbackServer(std::initializer_list<grpc::Service*> services) {
    grpc::ServerBuilder builder;
    ConfigureServer(builder, kMaxMessageBytes);
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    for (grpc::Service* service : services) builder.RegisterService(service);
    server_ = builder.BuildAndStart();
    address_ = "127.0.0.1:" + std::to_string(port);
  }
  ~LoopbackServer() { Stop(); }

  // Cancels all calls and waits until their handlers have returned.
  void Stop() { server_->Shutdown(std::chrono::system_clock::now()); }

  const std::string& address() const { return address_; }
  ChannelOptions channel_options() const { return {.address = address_}; }

 private:
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
};

}  // namespace refit
