#include "common/net/address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/un.h>

#include <algorithm>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "refit/tensor_spec.h"

namespace refit {
namespace {

// The host, without port and brackets. Empty if there is no port.
std::string HostOf(absl::string_view address) {
  const size_t colon = address.rfind(':');
  if (colon == absl::string_view::npos) return "";
  // gRPC escapes the brackets in its peers' names.
  std::string host = absl::StrReplaceAll(address.substr(0, colon), {{"%5B", "["}, {"%5D", "]"}});
  if (absl::StartsWith(host, "[") && absl::EndsWith(host, "]")) host = host.substr(1, host.size() - 2);
  return host;
}

bool IsLoopback(const std::string& host) {
  in_addr v4 = {};
  if (inet_pton(AF_INET, host.c_str(), &v4) == 1) return (ntohl(v4.s_addr) >> 24) == IN_LOOPBACKNET;
  in6_addr v6 = {};
  if (inet_pton(AF_INET6, host.c_str(), &v6) != 1) return absl::EqualsIgnoreCase(host, "localhost");
  return IN6_IS_ADDR_LOOPBACK(&v6) || (IN6_IS_ADDR_V4MAPPED(&v6) && v6.s6_addr[12] == IN_LOOPBACKNET);
}

constexpr int kLargestPort = 65535;
static_assert(kLongestUnixPath == sizeof(sockaddr_un::sun_path) - 1);

absl::string_view WithoutScheme(absl::string_view address) {
  for (const absl::string_view scheme : {"dns:///", "dns:", "ipv4:", "ipv6:"}) {
    if (absl::ConsumePrefix(&address, scheme)) break;
  }
  return address;
}

absl::Status NoAddress(absl::string_view address, absl::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat("the address '", Printable(address), "' ", why,
                                                 "; expected host:port, [IPv6 address]:port or unix:/path, such as "
                                                 "127.0.0.1:50051"));
}

absl::Status CheckPort(absl::string_view address, absl::string_view port, int least) {
  int number = 0;
  const bool is_number = !port.empty() && port.find_first_not_of("0123456789") == absl::string_view::npos;
  if (!is_number) return NoAddress(address, "names no port");
  if (absl::SimpleAtoi(port, &number) && number >= least && number <= kLargestPort) return absl::OkStatus();
  return NoAddress(address, absl::StrCat("has port ", Printable(port), ", which is not from ", least, " to 65535"));
}

// `address` is the whole address, for messages.
absl::Status CheckHostAndPort(absl::string_view address, absl::string_view host_and_port, int least_port) {
  const bool has_brackets = absl::StartsWith(host_and_port, "[");
  const size_t colon = host_and_port.rfind(':');
  if (colon == absl::string_view::npos) return NoAddress(address, "names no port");
  const absl::string_view host = host_and_port.substr(0, colon);
  if (host.empty()) return NoAddress(address, "names no host");
  if (has_brackets && !absl::EndsWith(host, "]")) return NoAddress(address, "names no port after its brackets");
  if (!has_brackets && absl::StrContains(host, ':')) {
    return NoAddress(address, "has several colons without brackets");
  }
  return CheckPort(address, host_and_port.substr(colon + 1), least_port);
}

}  // namespace

absl::Status CheckAddress(absl::string_view address, int least_port) {
  if (absl::StartsWith(address, "unix:") || absl::StartsWith(address, "unix-abstract:")) {
    const absl::string_view path = absl::StripPrefix(address.substr(address.find(':') + 1), "//");
    if (path.empty()) return NoAddress(address, "names no path");
    if (path.size() <= kLongestUnixPath) return absl::OkStatus();
    return NoAddress(address, absl::StrCat("has a path of ", path.size(), " bytes; the system takes ", kLongestUnixPath,
                                           " at most"));
  }
  const absl::string_view rest = WithoutScheme(address);
  if (absl::StrContains(rest, "://")) return NoAddress(address, "is a URL: leave out the scheme");
  if (rest.size() == address.size()) return CheckHostAndPort(address, address, least_port);
  for (const absl::string_view one : absl::StrSplit(rest, ',')) {
    if (absl::Status status = CheckHostAndPort(address, one, least_port); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::string_view UnixPath(absl::string_view address) {
  if (!absl::ConsumePrefix(&address, "unix:")) return "";
  return absl::StripPrefix(address, "//");
}

std::vector<std::string> SplitAddresses(absl::string_view list) {
  std::vector<std::string> addresses;
  for (const absl::string_view address : absl::StrSplit(list, ',')) {
    addresses.emplace_back(absl::StripAsciiWhitespace(address));
  }
  return addresses;
}

absl::Status CheckOneAddress(absl::string_view address) {
  if (address.empty()) return absl::InvalidArgumentError("the service's address is empty; expected host:port");
  absl::Status status = CheckAddress(address, 1);
  if (status.ok() || SplitAddresses(address).size() == 1) return status;
  return absl::InvalidArgumentError(absl::StrCat(
      "expected the address of one service, got '", Printable(address),
      "': only what pulls, follows or watches chooses between several; a push goes to the one that all others copy"));
}

absl::Status CheckAddresses(absl::string_view list) {
  const std::vector<std::string> addresses = SplitAddresses(list);
  for (auto address = addresses.begin(); address != addresses.end(); ++address) {
    if (absl::Status status = CheckAddress(*address, 1); !status.ok()) return status;
    if (std::find(addresses.begin(), address, *address) == address) continue;
    return absl::InvalidArgumentError(absl::StrCat("the address '", Printable(*address), "' is listed twice"));
  }
  return absl::OkStatus();
}

std::optional<NameAndPort> NameToLookUp(absl::string_view address) {
  if (!absl::ConsumePrefix(&address, "dns:///")) return std::nullopt;
  const size_t colon = address.rfind(':');
  if (colon == absl::string_view::npos) return std::nullopt;
  return NameAndPort{HostOf(address), std::string(address.substr(colon + 1))};
}

bool IsLocal(absl::string_view address) {
  // The system ends a path at a zero byte, so what follows it must not be judged.
  if (address.find('\0') != absl::string_view::npos) return false;
  if (absl::StartsWith(address, "unix:") || absl::StartsWith(address, "unix-abstract:")) return true;
  return IsLoopback(HostOf(WithoutScheme(address)));
}

}  // namespace refit
