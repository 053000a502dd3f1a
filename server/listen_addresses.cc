#include "server/listen_addresses.h"

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/net/address.h"

namespace refit {
namespace {

bool HasPort(absl::string_view address) {
  return !absl::StartsWith(address, "unix:") && !absl::StartsWith(address, "unix-abstract:");
}

}  // namespace

std::vector<std::string> ListenAddresses(absl::string_view listen) { return SplitAddresses(listen); }

std::vector<std::string> UnixPaths(absl::string_view listen) {
  std::vector<std::string> paths;
  for (const std::string& address : ListenAddresses(listen)) {
    if (const absl::string_view path = UnixPath(address); !path.empty()) paths.emplace_back(path);
  }
  return paths;
}

std::string WithPort(absl::string_view address, int port) {
  if (!HasPort(address)) return std::string(address);
  return absl::StrCat(address.substr(0, address.rfind(':')), ":", port);
}

int PortOf(absl::string_view address) {
  int port = 0;
  return HasPort(address) && absl::SimpleAtoi(address.substr(address.rfind(':') + 1), &port) ? port : 0;
}

}  // namespace refit
