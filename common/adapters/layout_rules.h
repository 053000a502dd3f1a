// Applies layout rules to tensors.
#pragma once

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/adapters/python_regex.h"
#include "refit/box.h"
#include "refit/layout_rule.h"

namespace refit {

// Rules in order: each cuts what the ones before it left, so two rules on one dimension nest as DTensor placements do.
class LayoutRules {
 public:
  // INVALID_ARGUMENT for a bad pattern, parts 0, or a part that is not below parts.
  static absl::StatusOr<LayoutRules> Compile(absl::Span<const LayoutRule> rules);

  // The box of this tensor; `experts`: it holds experts. INVALID_ARGUMENT where a rule's pattern matches a tensor that
  // lacks the dimension.
  absl::StatusOr<Box> BoxOf(const TensorSpec& tensor, bool experts);

  // NOT_FOUND, naming it, if some rule has applied to none of the tensors that BoxOf was asked for.
  absl::Status CheckAllApplied() const;

 private:
  struct Compiled {
    LayoutRule rule;
    std::shared_ptr<const PythonRegex> pattern;  // null: every name
    bool applied = false;
  };
  std::vector<Compiled> rules_;
};

}  // namespace refit
