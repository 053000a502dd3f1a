// Options that most subcommands share, and the channel options made from them.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "client/cli/run/interrupt.h"
#include "common/net/channel.h"

namespace refit::cli {

// Prints a warning on stderr if reloaded certificates or tokens cannot be used.
void WarnOfReload(const absl::Status& status);

struct CommonOptions {
  std::string server = "127.0.0.1:50051";
  std::string zone;
  double connect_timeout_seconds = 10;
  ClientSecurity security;
  std::string model = "default";
  bool json = false;
  bool quiet = false;

  ChannelOptions Channel() const {
    ChannelOptions channel;
    channel.address = server;
    channel.zone = zone;
    channel.connect_timeout = std::chrono::milliseconds(static_cast<int64_t>(connect_timeout_seconds * 1000));
    channel.security = security;
    channel.on_reload = WarnOfReload;
    return channel;
  }
  // Options of a channel. Connecting ends with CANCELLED once `interrupt` is raised. `interrupt` must outlive the
  // options.
  ChannelOptions Channel(const Interrupt& interrupt) const {
    ChannelOptions channel = Channel();
    channel.is_cancelled = [&interrupt] { return interrupt.raised(); };
    return channel;
  }
};

}  // namespace refit::cli
