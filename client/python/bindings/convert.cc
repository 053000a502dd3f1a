#include "client/python/bindings/convert.h"

#include <pybind11/stl.h>

#include <map>

#include "absl/strings/str_cat.h"
#include "client/python/bindings/status_error.h"
#include "common/net/states.h"

namespace refit::python {
namespace {

namespace py = pybind11;

Transport ParseTransport(const std::string& name) {
  static const std::map<std::string, Transport> known = {
      {"auto", Transport::kAuto}, {"wire", Transport::kWire}, {"shared_memory", Transport::kSharedMemory}};
  const auto found = known.find(name);
  if (found == known.end()) {
    throw StatusError(absl::InvalidArgumentError(
        absl::StrCat("transport '", name, "' is none of 'auto', 'wire' and 'shared_memory'")));
  }
  return found->second;
}

std::string Get(const py::dict& options, const char* name) {
  return options.contains(name) && !options[name].is_none() ? py::str(options[name]).cast<std::string>() : "";
}

}  // namespace

py::dict ToDict(const VersionSummary& version) {
  py::dict result;
  result["model"] = version.model;
  result["version"] = version.version;
  result["state"] = StateName(static_cast<v1::VersionState>(version.state));
  result["tensors"] = version.tensors;
  result["bytes"] = version.bytes;
  result["adapter"] = version.adapter;
  result["manifest_digest"] = py::cast(version.manifest_digest);
  result["installs_held"] = version.installs_held;
  result["spooled"] = version.spooled;
  result["trainer_epoch"] = version.trainer_epoch;
  return result;
}

py::dict ToDict(const PullTraffic& traffic) {
  py::dict result;
  result["wire_bytes"] = traffic.wire_bytes;
  result["mapped_bytes"] = traffic.mapped_bytes;
  result["raw_chunks"] = traffic.raw_chunks;
  result["delta_chunks"] = traffic.delta_chunks;
  result["unchanged_chunks"] = traffic.unchanged_chunks;
  result["changed_elements"] = traffic.changed_elements;
  result["base_version"] = py::cast(traffic.base_version);
  result["base_refused"] = traffic.base_refused;
  return result;
}

std::optional<DType> OptionalDType(const std::optional<std::string>& name) {
  return name.has_value() ? std::optional(Value(ParseDType(*name))) : std::nullopt;
}

ChannelOptions MakeChannelOptions(const std::string& address, const std::string& zone, const std::string& transport,
                                  double connect_timeout, const py::dict& security) {
  ChannelOptions options;
  options.address = address;
  options.zone = zone;
  options.transport = ParseTransport(transport);
  options.connect_timeout = Milliseconds(connect_timeout);
  options.security.ca = Get(security, "ca");
  options.security.certificate = Get(security, "certificate");
  options.security.key = Get(security, "key");
  options.security.server_name = Get(security, "server_name");
  options.security.token_file = Get(security, "token_file");
  return options;
}

}  // namespace refit::python
