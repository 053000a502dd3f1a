#include "common/adapters/family_names.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"

namespace refit {

ExpertTemplate::ExpertTemplate(absl::string_view name) {
  const size_t place = name.find(kExpertPlace);
  head_ = std::string(name.substr(0, place));
  if (place != absl::string_view::npos) tail_ = std::string(name.substr(place + kExpertPlace.size()));
}

std::string ExpertTemplate::Of(absl::string_view expert) const { return absl::StrCat(head_, expert, tail_); }

std::string ExpertTemplate::Of(int64_t expert) const { return absl::StrCat(head_, expert, tail_); }

const BoundRule* RuleFor(const BoundFamily& family, absl::string_view native, size_t rank) {
  for (const BoundRule& rule : family.rules) {
    if (rule.rule->other_ranks_pass && rank != *rule.rule->rank) continue;
    if (std::all_of(rule.when.begin(), rule.when.end(),
                    [&](const NameFinder& finder) { return finder.Matches(native); })) {
      return &rule;
    }
  }
  return nullptr;
}

absl::StatusOr<std::string> OutputName(const BoundRule& rule, const BoundOutput& output, const NameFinder::Found& found,
                                       absl::string_view native) {
  if (!output.parts.has_value()) {
    return rule.when.back().Replace(native, found, WithGroups(output.to, found.groups));
  }
  const std::optional<NameFinder::Found> parts = output.parts->Find(native);
  if (parts.has_value()) return WithGroups(output.to, parts->groups);
  return absl::InvalidArgumentError(absl::StrCat(rule.rule->experts ? "expert tensor " : "tensor ", Printable(native),
                                                 " has no \"", output.rule->needs, "\" in its name"));
}

std::string Renamed(const BoundFamily& family, std::string name) {
  for (const BoundRename& rename : family.renames) {
    const std::optional<NameFinder::Found> found = rename.find.Find(name);
    if (found.has_value()) name = rename.find.Replace(name, *found, WithGroups(rename.to, found->groups));
  }
  return name;
}

}  // namespace refit
