// What most subcommands have in common.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "client/cli/run/interrupt.h"
#include "common/net/channel.h"

namespace refit::cli {

// Says on stderr if changed certificates or tokens cannot be used.
void WarnOfReload(const absl::Status& status);

struct CommonOptions {
  std::string server = "127.0.0.1:50051";
  double connect_timeout_seconds = 10;
  ClientSecurity security;
  std::string model = "default";
  bool json = false;
  bool quiet = false;

  ChannelOptions Channel() const {
    ChannelOptions channel;
    channel.address = server;
    channel.connect_timeout = std::chrono::milliseconds(static_cast<int64_t>(connect_timeout_seconds * 1000));
    channel.security = security;
    channel.on_reload = WarnOfReload;
    return channel;
  }
  // Of which the connecting ends with CANCELLED once `interrupt`, which must live as long, is raised.
  ChannelOptions Channel(const Interrupt& interrupt) const {
    ChannelOptions channel = Channel();
    channel.is_cancelled = [&interrupt] { return interrupt.raised(); };
    return channel;
  }
};

}  // namespace refit::cli
