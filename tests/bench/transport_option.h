// The transport option of the benchmark programs.
#pragma once

#include <CLI/CLI.hpp>
#include <map>
#include <string>

#include "common/net/channel.h"

namespace refit {

inline const std::map<std::string, Transport> kTransports = {
    {"auto", Transport::kAuto}, {"tcp", Transport::kWire}, {"shm", Transport::kSharedMemory}};

inline void AddTransportOption(CLI::App& app, ChannelOptions& channel) {
  app.add_option("--transport", channel.transport)->transform(CLI::CheckedTransformer(kTransports));
}

// The requested transport: without shared memory, "shm" is an error.
inline std::string TransportName(const ChannelOptions& channel) {
  for (const auto& [name, value] : kTransports) {
    if (value == channel.transport) return name;
  }
  return "";
}

}  // namespace refit
