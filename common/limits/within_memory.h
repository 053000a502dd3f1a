// Turns std::bad_alloc into an error status.
#pragma once

#include <new>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace refit {

// Calls `work`, which returns an absl::Status or StatusOr, and returns its result. RESOURCE_EXHAUSTED if it throws
// std::bad_alloc. The message says `what` the memory was for.
template <typename Work>
auto WithinMemory(absl::string_view what, Work&& work) -> decltype(work()) {
  try {
    return work();
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError(absl::StrCat("the process has no memory left for ", what));
  }
}

}  // namespace refit
