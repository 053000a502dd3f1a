#include "client/cli/run/interrupt.h"

#include <cstdlib>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/cli/run/exit_code.h"

namespace refit::cli {

Interrupt::Interrupt() : signals_([this](int /*signal*/) { Note(); }) {}

void Interrupt::Note() {
  if (raised_.exchange(true)) std::_Exit(kExitInterrupted);
  const std::lock_guard<std::mutex> lock(mutex_);
  if (reaction_) reaction_();
}

void Interrupt::SetReaction(std::function<void()> reaction) {
  const std::lock_guard<std::mutex> lock(mutex_);
  reaction_ = std::move(reaction);
  if (reaction_ && raised_) reaction_();
}

absl::Status Interrupt::Explain(const absl::Status& status, absl::string_view consequence) const {
  if (!raised_ || status.ok()) return status;
  return absl::CancelledError(absl::StrCat("interrupted; ", consequence));
}

}  // namespace refit::cli
