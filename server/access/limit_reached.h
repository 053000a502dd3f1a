// The error for a request beyond a limit of the service.
#pragma once

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace refit {

// RESOURCE_EXHAUSTED that records the flag that sets the limit, such as "--max-pulls". Annotate keeps the flag.
absl::Status LimitReached(absl::string_view flag, absl::string_view message);

// The recorded flag; nullopt if `status` does not come from LimitReached.
std::optional<std::string> LimitOf(const absl::Status& status);

// Says for messages how to raise a setting: "raise it with refit-server --rank-timeout, or
// refit.serve(rank_timeout=...)" for "rank_timeout".
std::string HowToRaise(absl::string_view argument);

}  // namespace refit
