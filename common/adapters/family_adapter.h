// Makes an adapter of a family's data and a trainer's options.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/adapters/family.h"
#include "common/adapters/plan.h"

namespace refit {

// Every adapter also has these two options, which check what shapes say.
inline constexpr absl::string_view kExpertsOption = "experts";
inline constexpr absl::string_view kExpertWidthOption = "expert_width";

// INVALID_ARGUMENT, listing what there is, for an option or a value that the family does not have, and for rules that
// are malformed.
absl::StatusOr<std::shared_ptr<const Adapter>> MakeAdapter(std::shared_ptr<const Family> family,
                                                           const AdapterOptions& options);

}  // namespace refit
