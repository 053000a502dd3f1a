#include "common/net/repeated_messages.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace refit {

std::optional<std::string> RepeatedMessages::Pass(absl::string_view message, Clock::time_point now) {
  const absl::string_view start = message.substr(0, message.find('{'));
  const absl::MutexLock lock(&mutex_);
  const auto same =
      std::find_if(passed_.begin(), passed_.end(), [start](const Passed& one) { return one.start == start; });
  uint64_t left_out = 0;
  if (same != passed_.end()) {
    if (now - same->at < kSilence) {
      ++same->left_out;
      return std::nullopt;
    }
    left_out = same->left_out;
    passed_.erase(same);
  }
  if (passed_.size() == kRemembered) passed_.erase(passed_.begin());
  passed_.push_back({std::string(start), now});
  if (left_out == 0) return std::string(message);
  return absl::StrCat(message, " (and ", left_out, " more like it since the last one)");
}

}  // namespace refit
