// Matchers for absl::Status and StatusOr.
#pragma once

#include <gmock/gmock.h>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace refit {

inline const absl::Status& GetStatus(const absl::Status& status) { return status; }
template <typename T>
const absl::Status& GetStatus(const absl::StatusOr<T>& value) {
  return value.status();
}

MATCHER(IsOk, negation ? "is not OK" : "is OK") {
  *result_listener << GetStatus(arg);
  return GetStatus(arg).ok();
}

// StatusIs(code, message matcher).
MATCHER_P2(StatusIs, code, message, "") {
  *result_listener << GetStatus(arg);
  return GetStatus(arg).code() == code &&
         ::testing::ExplainMatchResult(message, std::string(GetStatus(arg).message()), result_listener);
}
MATCHER_P(StatusIs, code, "") {
  *result_listener << GetStatus(arg);
  return GetStatus(arg).code() == code;
}

}  // namespace refit

#define ASSERT_OK(expression) ASSERT_THAT(expression, ::refit::IsOk())
#define EXPECT_OK(expression) EXPECT_THAT(expression, ::refit::IsOk())
