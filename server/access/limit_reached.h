// The error of whoever asks for more than the service allows.
#pragma once

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace refit {

// RESOURCE_EXHAUSTED that remembers the flag which sets the limit, such as "--max-pulls"; Annotate keeps it.
absl::Status LimitReached(absl::string_view flag, absl::string_view message);

// The flag; nullopt if `status` does not come from LimitReached.
std::optional<std::string> LimitOf(const absl::Status& status);

// How to have more of a setting, for messages: "raise it with refit-server --rank-timeout, or
// refit.serve(rank_timeout=...)" for "rank_timeout".
std::string HowToRaise(absl::string_view argument);

}  // namespace refit
