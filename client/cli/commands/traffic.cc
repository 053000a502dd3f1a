#include "client/cli/commands/traffic.h"

#include "absl/strings/str_cat.h"
#include "client/cli/terminal/format.h"

namespace refit::cli {

std::string RouteText(const std::string& server, const std::string& address, uint64_t moved) {
  if (address == server) return "";
  return absl::StrCat("from ", address, moved > 0 ? absl::StrCat(" (moved ", FormatCount(moved, "time"), ")") : "");
}

std::string ChangesText(const PullTraffic& traffic) {
  if (!traffic.base_version.has_value()) return "";
  const std::string since = absl::StrCat("since version ", *traffic.base_version);
  if (traffic.wire_bytes == 0) return absl::StrCat("unchanged ", since);
  return absl::StrCat("as ", FormatBytes(traffic.wire_bytes), " of changes ", since);
}

std::string RefusalText(const PullTraffic& traffic) {
  if (traffic.base_refused.empty()) return "";
  const bool was_used = traffic.base_version.has_value();
  return absl::StrCat("the base was ", was_used ? "used in part" : "not used", ": ", traffic.base_refused);
}

nlohmann::ordered_json ToJson(const PullTraffic& traffic) {
  using Json = nlohmann::ordered_json;
  return {{"wire_bytes", traffic.wire_bytes},
          {"base_version", traffic.base_version.has_value() ? Json(*traffic.base_version) : Json()},
          {"base_refused", traffic.base_refused.empty() ? Json() : Json(traffic.base_refused)},
          {"changed_elements", traffic.changed_elements},
          {"chunks",
           {{"unchanged", traffic.unchanged_chunks}, {"delta", traffic.delta_chunks}, {"raw", traffic.raw_chunks}}}};
}

}  // namespace refit::cli
