// Turns exceptions of LibTorch into absl::Status.
#pragma once

#include <c10/util/Exception.h>

#include <exception>
#include <new>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace refit {

// Calls `function`, which returns a Status or StatusOr, and returns its result. If it throws, returns a status with
// `what` and LibTorch's explanation: INVALID_ARGUMENT for errors of value, type and index, RESOURCE_EXHAUSTED if memory
// is exhausted, INTERNAL otherwise.
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
