// Finds names that have a prefix too many or too few for a family: some of its rules would know them, others not.
#pragma once

#include "absl/status/status.h"
#include "common/adapters/family.h"
#include "common/adapters/family_binding.h"
#include "common/adapters/plan.h"

namespace refit {

// INVALID_ARGUMENT, naming the tensors and the way out,
// - if rules build some names of layers anew, and others keep a prefix that these have lost, unless the prefix was
// asked
//   for: {"uses_model_prefix", "false"};
// - if more names would be known without the component that all begin with, or with the model's prefix.
absl::Status CheckPrefixes(const Family& family, const BoundFamily& bound, const VersionPlan& plan);

}  // namespace refit
