// Applies layout rules to tensors.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/adapters/plan.h"
#include "common/adapters/python_regex.h"
#include "refit/box.h"
#include "refit/layout_rule.h"

namespace refit {

// An ordered list of rules. Each rule cuts what the rules before it left, so two rules on one dimension nest like
// DTensor placements.
class LayoutRules {
 public:
  // INVALID_ARGUMENT for a bad pattern, for parts 0, or for a part that is not below parts.
  static absl::StatusOr<LayoutRules> Compile(absl::Span<const LayoutRule> rules);

  // The box of this tensor. `experts`: whether it holds experts. INVALID_ARGUMENT if a rule's pattern matches a tensor
  // that lacks the rule's dimension, or two exclusive rules one tensor.
  absl::StatusOr<Box> BoxOf(const TensorSpec& tensor, bool experts);

  // The box of an HF tensor; nullopt for an expert that belongs to another part. A rule for experts applies to a tensor
  // that is one expert as if all were stacked: its dimension 0 counts experts. Errors as above.
  absl::StatusOr<std::optional<Box>> BoxOf(const PlannedOutput& output);

  // NOT_FOUND, naming the rule, if a rule applied to none of the tensors passed to BoxOf.
  absl::Status CheckAllApplied() const;

 private:
  struct Compiled {
    LayoutRule rule;
    std::shared_ptr<const PythonRegex> pattern;  // null: every name
    bool applied = false;
  };
  // `tensor` has `stacked` dimensions in front, to which only rules for experts refer.
  absl::StatusOr<Box> Apply(const TensorSpec& tensor, bool experts, size_t stacked);

  std::vector<Compiled> rules_;
};

}  // namespace refit
