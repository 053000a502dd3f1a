#include "server/access/limit_reached.h"

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

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

std::string HowToRaise(absl::string_view argument) {
  return absl::StrCat("raise it with refit-server --", absl::StrReplaceAll(argument, {{"_", "-"}}), ", or refit.serve(",
                      argument, "=...)");
}

}  // namespace refit
