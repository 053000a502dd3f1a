#include "common/adapters/family_binding.h"

#include <algorithm>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/adapters/family_adapter.h"

namespace refit {
namespace {

// The value that each option has.
using Chosen = std::map<std::string, const FamilyOption::Value*>;

std::string NamesOf(const FamilyOption& option) {
  return absl::StrJoin(option.values, ", ",
                       [](std::string* out, const FamilyOption::Value& value) { absl::StrAppend(out, value.name); });
}

absl::StatusOr<const FamilyOption::Value*> Choose(const Family& family, const FamilyOption& option,
                                                  const AdapterOptions& options) {
  const auto asked = options.find(option.name);
  if (asked == options.end()) return &option.values.front();
  const auto value =
      absl::c_find_if(option.values, [&](const FamilyOption::Value& known) { return known.name == asked->second; });
  if (value != option.values.end()) return &*value;
  return absl::InvalidArgumentError(absl::StrCat("adapter ", family.name, ": ", option.name, " is '",
                                                 Printable(asked->second), "'; expected one of ", NamesOf(option)));
}

absl::StatusOr<std::optional<int64_t>> SizeOption(const AdapterOptions& options, absl::string_view name) {
  const auto asked = options.find(std::string(name));
  if (asked == options.end()) return std::nullopt;
  int64_t value = 0;
  if (absl::SimpleAtoi(asked->second, &value) && value > 0) return value;
  return absl::InvalidArgumentError(
      absl::StrCat("adapter option ", name, " is '", Printable(asked->second), "'; expected a number above 0"));
}

absl::Status CheckKnown(const Family& family, const AdapterOptions& options) {
  for (const auto& [name, value] : options) {
    if (name == kExpertsOption || name == kExpertWidthOption) continue;
    if (absl::c_any_of(family.options, [&name = name](const FamilyOption& option) { return option.name == name; })) {
      continue;
    }
    std::vector<absl::string_view> known = {kExpertsOption, kExpertWidthOption};
    for (const FamilyOption& option : family.options) known.emplace_back(option.name);
    return absl::InvalidArgumentError(absl::StrCat("adapter ", family.name, " has no option '", Printable(name),
                                                   "'; it has ", absl::StrJoin(known, ", ")));
  }
  return absl::OkStatus();
}

bool Holds(const std::map<std::string, std::vector<std::string>>& only, const Chosen& chosen) {
  return absl::c_all_of(only, [&](const auto& condition) {
    const auto option = chosen.find(condition.first);
    return option != chosen.end() && absl::c_linear_search(condition.second, option->second->name);
  });
}

absl::StatusOr<BoundOutput> BindOutput(const OutputRule& output, const NameFinder& found, const Variables& variables) {
  absl::StatusOr<std::string> to = Expand(output.to, variables);
  if (!to.ok()) return to.status();
  absl::StatusOr<std::string> native = Expand(output.native, variables);
  if (!native.ok()) return native.status();
  BoundOutput bound{&output, *std::move(to), std::nullopt, *std::move(native)};
  if (output.parts.has_value()) {
    absl::StatusOr<NameFinder> parts = NameFinder::Compile({NameMatcher::Kind::kRegex, *output.parts}, variables);
    if (!parts.ok()) return parts.status();
    bound.parts = *std::move(parts);
  }
  const int groups = (bound.parts.has_value() ? *bound.parts : found).groups();
  if (LargestGroup(bound.to) > groups) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", bound.to, "' refers to group ", LargestGroup(bound.to), " of a pattern with ", groups));
  }
  return bound;
}

absl::StatusOr<BoundRule> BindRule(const FamilyRule& rule, const Variables& variables) {
  BoundRule bound{&rule, {}, {}};
  for (const NameMatcher& matcher : rule.when) {
    absl::StatusOr<NameFinder> finder = NameFinder::Compile(matcher, variables);
    if (!finder.ok()) return finder.status();
    bound.when.push_back(*std::move(finder));
  }
  for (const OutputRule& output : rule.outputs) {
    absl::StatusOr<BoundOutput> next = BindOutput(output, bound.when.back(), variables);
    if (!next.ok()) return next.status();
    bound.outputs.push_back(*std::move(next));
  }
  return bound;
}

absl::StatusOr<BoundRename> BindRename(const RenameRule& rename, const Variables& variables) {
  absl::StatusOr<NameFinder> find = NameFinder::Compile(rename.find, variables);
  if (!find.ok()) return find.status();
  absl::StatusOr<std::string> to = Expand(rename.to, variables);
  if (!to.ok()) return to.status();
  if (LargestGroup(*to) > find->groups()) {
    return absl::InvalidArgumentError(absl::StrCat("'", *to, "' refers to a group that its pattern lacks"));
  }
  BoundRename bound{&rename, *std::move(find), *std::move(to), nullptr};
  if (rename.back.empty()) return bound;
  absl::StatusOr<std::shared_ptr<const PythonRegex>> back = PythonRegex::Compile(rename.back);
  if (!back.ok()) return back.status();
  bound.back = *std::move(back);
  return bound;
}

absl::Status At(const std::string& where, const absl::Status& status) {
  return absl::InvalidArgumentError(absl::StrCat(where, ": ", status.message()));
}

}  // namespace

absl::StatusOr<BoundFamily> Bind(const Family& family, const AdapterOptions& options) {
  if (absl::Status status = CheckKnown(family, options); !status.ok()) return status;
  Variables variables = family.variables;
  Chosen chosen;
  for (const FamilyOption& option : family.options) {
    absl::StatusOr<const FamilyOption::Value*> value = Choose(family, option, options);
    if (!value.ok()) return value.status();
    chosen[option.name] = *value;
    for (const auto& [name, text] : (*value)->variables) variables[name] = text;
  }
  BoundFamily bound;
  for (const FamilyRule& rule : family.rules) {
    if (!Holds(rule.only, chosen)) continue;
    Variables with_own = variables;
    for (const auto& [name, text] : rule.variables) with_own[name] = text;
    absl::StatusOr<BoundRule> next = BindRule(rule, with_own);
    if (!next.ok()) return At(rule.where, next.status());
    bound.rules.push_back(*std::move(next));
  }
  for (const RenameRule& rename : family.renames) {
    if (!Holds(rename.only, chosen)) continue;
    absl::StatusOr<BoundRename> next = BindRename(rename, variables);
    if (!next.ok()) return At(rename.where, next.status());
    bound.renames.push_back(*std::move(next));
  }
  absl::StatusOr<std::optional<int64_t>> experts = SizeOption(options, kExpertsOption);
  if (!experts.ok()) return experts.status();
  bound.experts = *experts;
  absl::StatusOr<std::optional<int64_t>> width = SizeOption(options, kExpertWidthOption);
  if (!width.ok()) return width.status();
  bound.expert_width = *width;
  const auto prefix = chosen.find(kModelPrefixOption);
  bound.drops_model_prefix = prefix != chosen.end() && prefix->second->name == "false";
  return bound;
}

}  // namespace refit
