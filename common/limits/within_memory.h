// Memory that runs out is an error to report, no reason to die.
#pragma once

#include <new>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace refit {

// What `work` gives, an absl::Status or StatusOr; RESOURCE_EXHAUSTED if it throws std::bad_alloc. `what` it was for
// goes into the message.
template <typename Work>
auto WithinMemory(absl::string_view what, Work&& work) -> decltype(work()) {
  try {
    return work();
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError(absl::StrCat("the process has no memory left for ", what));
  }
}

}  // namespace refit
