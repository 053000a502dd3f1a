#include "common/adapters/layout_rules.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace refit {

absl::StatusOr<LayoutRules> LayoutRules::Compile(absl::Span<const LayoutRule> rules) {
  LayoutRules compiled;
  for (const LayoutRule& rule : rules) {
    if (rule.part >= rule.parts) {
      return absl::InvalidArgumentError(
          absl::StrCat("layout rule (", rule.ToString(), "): parts are numbered from 0 to parts - 1"));
    }
    Compiled next{rule, nullptr};
    if (!rule.pattern.empty()) {
      absl::StatusOr<std::shared_ptr<const PythonRegex>> pattern = PythonRegex::Compile(rule.pattern);
      if (!pattern.ok()) return pattern.status();
      next.pattern = *std::move(pattern);
    }
    compiled.rules_.push_back(std::move(next));
  }
  return compiled;
}

absl::StatusOr<Box> LayoutRules::BoxOf(const TensorSpec& tensor, bool experts) {
  Box box = WholeBox(tensor.shape);
  for (Compiled& next : rules_) {
    const LayoutRule& rule = next.rule;
    if (rule.scope != LayoutRule::Scope::kAny && experts != (rule.scope == LayoutRule::Scope::kExperts)) continue;
    if (next.pattern != nullptr && !next.pattern->Search(tensor.name)) continue;
    if (rule.dimension >= tensor.shape.size()) {
      if (next.pattern == nullptr) continue;
      return absl::InvalidArgumentError(absl::StrCat("layout rule (", rule.ToString(), ") matches tensor ",
                                                     tensor.ToString(), ", which has no such dimension"));
    }
    next.applied = true;
    box = Cut(box, rule.dimension, rule.split, rule.part, rule.parts);
  }
  return box;
}

absl::Status LayoutRules::CheckAllApplied() const {
  for (const Compiled& next : rules_) {
    if (next.applied) continue;
    return absl::NotFoundError(absl::StrCat("layout rule (", next.rule.ToString(), ") applies to no tensor"));
  }
  return absl::OkStatus();
}

}  // namespace refit
