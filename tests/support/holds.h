// A matcher for a StatusOr's value.
#pragma once

#include <gmock/gmock.h>

#include "tests/support/status_matchers.h"

namespace refit {

MATCHER_P(IsOkAndHolds, value, "") {
  if (!arg.ok()) {
    *result_listener << arg.status();
    return false;
  }
  return ::testing::ExplainMatchResult(value, *arg, result_listener);
}

}  // namespace refit
