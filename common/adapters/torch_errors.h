// LibTorch reports errors by throwing; this project by absl::Status. Here is the border.
#pragma once

#include <c10/util/Exception.h>

#include <exception>
#include <new>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace refit {

// What `function`, which gives a Status or StatusOr, returns; or what it throws as a status: `what` and the
// explanation. INVALID_ARGUMENT for LibTorch's errors of value, type and index, RESOURCE_EXHAUSTED for want of memory,
// INTERNAL otherwise.
template <typename Function>
auto CatchTorchErrors(absl::string_view what, Function&& function) -> decltype(function()) {
  const auto explain = [&](const char* why) { return absl::StrCat(what, ": ", why); };
  try {
    return function();
  } catch (const c10::ValueError& error) {
    return absl::InvalidArgumentError(explain(error.what_without_backtrace()));
  } catch (const c10::TypeError& error) {
    return absl::InvalidArgumentError(explain(error.what_without_backtrace()));
  } catch (const c10::IndexError& error) {
    return absl::InvalidArgumentError(explain(error.what_without_backtrace()));
  } catch (const c10::Error& error) {
    return absl::InternalError(explain(error.what_without_backtrace()));
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError(explain("out of memory"));
  } catch (const std::exception& error) {
    return absl::InternalError(explain(error.what()));
  }
}

}  // namespace refit
