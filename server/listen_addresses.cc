#include "server/listen_addresses.h"

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/net/address.h"

namespace refit {

std::vector<std::string> ListenAddresses(absl::string_view listen) {
  std::vector<std::string> addresses;
  for (const absl::string_view address : absl::StrSplit(listen, ',')) {
    addresses.emplace_back(absl::StripAsciiWhitespace(address));
  }
  return addresses;
}

std::string WithPort(absl::string_view address, int port) {
  if (!UnixPath(address).empty()) return std::string(address);
  return absl::StrCat(address.substr(0, address.rfind(':')), ":", port);
}

int PortOf(absl::string_view address) {
  int port = 0;
  if (!UnixPath(address).empty()) return 0;
  return absl::SimpleAtoi(address.substr(address.rfind(':') + 1), &port) ? port : 0;
}

}  // namespace refit
