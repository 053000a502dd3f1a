#include "server/limit_reached.h"

#include "absl/strings/cord.h"

namespace refit {
namespace {

constexpr absl::string_view kLimit = "refit.limit";

}  // namespace

absl::Status LimitReached(absl::string_view flag, absl::string_view message) {
  absl::Status status = absl::ResourceExhaustedError(message);
  status.SetPayload(kLimit, absl::Cord(flag));
  return status;
}

std::optional<std::string> LimitOf(const absl::Status& status) {
  const auto flag = status.GetPayload(kLimit);
  if (!flag.has_value()) return std::nullopt;
  return std::string(*flag);
}

}  // namespace refit
