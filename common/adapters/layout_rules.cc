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

absl::StatusOr<Box> LayoutRules::BoxOf(const TensorSpec& tensor, bool experts) { return Apply(tensor, experts, 0); }

absl::StatusOr<std::optional<Box>> LayoutRules::BoxOf(const PlannedOutput& output) {
  if (!output.expert.has_value()) return BoxOf(output.hf, output.experts);
  TensorSpec stack = output.hf;
  stack.shape.insert(stack.shape.begin(), output.expert->count);
  absl::StatusOr<Box> box = Apply(stack, /*experts=*/true, /*stacked=*/1);
  if (!box.ok()) return box.status();
  const int64_t place = output.expert->index - box->offsets[0];
  if (place < 0 || place >= box->sizes[0]) return std::nullopt;
  box->offsets.erase(box->offsets.begin());
  box->sizes.erase(box->sizes.begin());
  return *std::move(box);
}

absl::StatusOr<Box> LayoutRules::Apply(const TensorSpec& tensor, bool experts, size_t stacked) {
  Box box = WholeBox(tensor.shape);
  const LayoutRule* exclusive = nullptr;
  for (Compiled& next : rules_) {
    const LayoutRule& rule = next.rule;
    if (rule.scope != LayoutRule::Scope::kAny && experts != (rule.scope == LayoutRule::Scope::kExperts)) continue;
    if (next.pattern != nullptr && !next.pattern->Search(tensor.name)) continue;
    const size_t dimension = rule.dimension + (rule.scope == LayoutRule::Scope::kExperts ? 0 : stacked);
    if (dimension >= tensor.shape.size()) {
      if (next.pattern == nullptr) continue;
      return absl::InvalidArgumentError(absl::StrCat("layout rule (", rule.ToString(), ") matches tensor ",
                                                     tensor.ToString(), ", which has no such dimension"));
    }
    if (rule.exclusive && exclusive != nullptr) {
      return absl::InvalidArgumentError(absl::StrCat("tensor ", tensor.ToString(), " is matched by two layout rules, (",
                                                     exclusive->ToString(), ") and (", rule.ToString(),
                                                     "), of which one at most may cut it: narrow a pattern"));
    }
    if (rule.exclusive) exclusive = &rule;
    next.applied = true;
    box = Cut(box, dimension, rule.split, rule.part, rule.parts);
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
