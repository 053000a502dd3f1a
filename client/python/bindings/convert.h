// Converts between protocol messages or options and Python types.
#pragma once

#include <pybind11/pybind11.h>

#include <chrono>
#include <optional>
#include <string>

#include "common/net/channel.h"
#include "refit/dtype.h"
#include "refit/pull.h"
#include "refit/version_summary.h"

namespace refit::python {

// A dict: model, version, state ("open"), tensors, bytes, adapter, manifest_digest (None before it is committed),
// installs_held, spooled, trainer_epoch.
pybind11::dict ToDict(const VersionSummary& version);

// A dict with the names of PullTraffic.
pybind11::dict ToDict(const PullTraffic& traffic);

inline std::chrono::milliseconds Milliseconds(double seconds) {
  return std::chrono::milliseconds(static_cast<int64_t>(seconds * 1000));
}

inline double Seconds(std::chrono::nanoseconds duration) { return std::chrono::duration<double>(duration).count(); }

// INVALID_ARGUMENT for an unknown name.
std::optional<DType> OptionalDType(const std::optional<std::string>& name);

// Makes client options. `transport` is "auto", "wire" or "shared_memory"; times are in seconds.
ChannelOptions MakeChannelOptions(const std::string& address, const std::string& zone, const std::string& transport,
                                  double connect_timeout, const pybind11::dict& security);

}  // namespace refit::python
