// Checks requests against the service's limits. RESOURCE_EXHAUSTED, naming the limit, its value and the flag that sets
// it, for a request beyond a limit.
#pragma once

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "refit/limits.h"
#include "refit/v1/pull.pb.h"
#include "refit/v1/types.pb.h"

namespace refit {

// Checks the length of its name and its number of dimensions.
absl::Status CheckTensor(const v1::TensorSpec& tensor, const Limits& limits);

absl::Status CheckRegex(absl::string_view pattern, const Limits& limits);

// Checks the filter and the rules of a request.
absl::Status CheckSelection(const v1::PullRequest& request, const Limits& limits);
absl::Status CheckSelection(const v1::GetManifestRequest& request, const Limits& limits);

}  // namespace refit
