// A service in this process, and a connection to it, for tests of trainers and workers.
#pragma once

#include <memory>
#include <string>

#include "common/net/channel.h"
#include "refit/server.h"
#include "tests/support/status_matchers.h"
#include "tests/support/test_model.h"

namespace refit {

inline ChannelOptions WireTo(const std::string& address) {
  ChannelOptions channel;
  channel.address = address;
  channel.transport = Transport::kWire;
  return channel;
}

inline std::unique_ptr<RefitServer> StartService(ServerOptions options = {}) {
  if (options.listen == ServerOptions().listen) options.listen = "127.0.0.1:0";
  auto server = RefitServer::Start(options);
  EXPECT_OK(server);
  return server.ok() ? *std::move(server) : nullptr;
}

}  // namespace refit
