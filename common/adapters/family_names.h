// The names of a family's tensors: which rule has a native name, and which HF names come of it.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/adapters/family_binding.h"
#include "common/adapters/name_rewriter.h"

namespace refit {

// What stands for an expert's number in names.
inline constexpr absl::string_view kExpertPlace = "{expert}";

// A name that is the same for all experts, but for their number.
class ExpertTemplate {
 public:
  explicit ExpertTemplate(absl::string_view name);
  std::string Of(absl::string_view expert) const;
  std::string Of(int64_t expert) const;

 private:
  std::string head_;
  std::string tail_;
};

// The first rule that a tensor of this name and rank fits; null if it passes.
const BoundRule* RuleFor(const BoundFamily& family, absl::string_view native, size_t rank);

// The name of one of the rule's outputs, before it is renamed, and with kExpertPlace in it. `found` is what the rule's
// last condition has found in the native name. INVALID_ARGUMENT if the name lacks the output's parts.
absl::StatusOr<std::string> OutputName(const BoundRule& rule, const BoundOutput& output, const NameFinder::Found& found,
                                       absl::string_view native);

// The name after all renames.
std::string Renamed(const BoundFamily& family, std::string name);

}  // namespace refit
