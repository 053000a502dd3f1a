#include "refit/layout_rule.h"

#include "absl/strings/str_cat.h"

namespace refit {

std::string LayoutRule::ToString() const {
  std::string text = scope == Scope::kExperts ? "experts, " : scope == Scope::kOrdinary ? "ordinary tensors, " : "";
  if (!pattern.empty()) absl::StrAppend(&text, "names with '", Printable(pattern), "', ");
  return absl::StrCat(text, "dimension ", dimension, ", part ", part, " of ", parts);
}

}  // namespace refit
