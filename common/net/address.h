// Checks addresses, and whether they are on this host.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace refit {

// Whether an address, or a gRPC peer ("ipv4:127.0.0.1:1234"), is certainly on this host: a loopback address, the name
// localhost, or a Unix socket. False for an address that cannot be parsed, and for any other name, whatever it begins
// with.
bool IsLocal(absl::string_view address);

// INVALID_ARGUMENT, saying what is wrong and what is expected, unless `address` is host:port, [ipv6]:port, unix:/path,
// or one of these after gRPC's dns:, ipv4: or ipv6:. Ports range from `least_port` to 65535. (gRPC itself wraps ports
// that are too large, and uses port 443 if there is none.) The system takes paths of up to
// kLongestUnixPath bytes. It does not check whether the host exists.
absl::Status CheckAddress(absl::string_view address, int least_port = 0);

inline constexpr size_t kLongestUnixPath = 107;

// The path of a Unix socket's address, "unix:/path". Empty for all others.
absl::string_view UnixPath(absl::string_view address);

// The addresses of a list with commas between them, without blanks. One address is a list, too.
std::vector<std::string> SplitAddresses(absl::string_view list);

// CheckAddress of an address to connect to. For a list, INVALID_ARGUMENT says who may have several.
absl::Status CheckOneAddress(absl::string_view address);

// CheckAddress of each address in the list. INVALID_ARGUMENT also if one comes twice.
absl::Status CheckAddresses(absl::string_view list);

// The name and the port of "dns:///name:port"; nullopt for every other address.
struct NameAndPort {
  std::string name;
  std::string port;
};
std::optional<NameAndPort> NameToLookUp(absl::string_view address);

}  // namespace refit
