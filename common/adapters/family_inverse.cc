#include "common/adapters/family_inverse.h"

#include <utility>

#include "absl/algorithm/container.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "common/adapters/family_names.h"

namespace refit {
namespace {

// More are never needed: a rename doubles them only where its texts are in the name.
constexpr size_t kMaxNames = 64;

// Experts in any of the published layouts.
constexpr char kAnyExpert[] = R"((?:^|\.)experts\.(?:[0-9]+\.|(?:gate|up|down|gate_up)_proj(?:[._]|$)))";

// What stands beside the weights of quantised checkpoints.
constexpr char kQuantised[] = R"((?:weight|proj)_(?:(?:activation_)?scale\w*|blocks|packed|shape|zero_point)$)";

const PythonRegex& Quantised() {
  static const std::shared_ptr<const PythonRegex> regex = PythonRegex::Compile(kQuantised).value();
  return *regex;
}

absl::Status Cannot(const std::string& where, const absl::Status& why) {
  return absl::InvalidArgumentError(absl::StrCat(where, ": this cannot be converted back: ", why.message()));
}

absl::StatusOr<NameInverse> InverseOf(const BoundRule& rule, const BoundOutput& output) {
  if (!output.parts.has_value()) return NameInverse::OfReplacement(rule.when.back(), output.to);
  if (!output.native.empty()) return NameInverse::OfWholeName(output.native, output.to);
  return absl::InvalidArgumentError("'parts' do not keep the whole native name; 'native' has to say it");
}

// What only names of this output have: the text before the expert's number, or at the end. Empty: nothing.
std::string MarkOf(const BoundOutput& output) {
  std::string mark;
  for (const NamePiece& piece : PiecesOf(output.to)) {
    if (piece.kind == NamePiece::Kind::kExpert) return absl::StrCat(QuoteRegex(absl::StripPrefix(mark, ".")), "[0-9]");
    mark = piece.text;
  }
  const absl::string_view text = absl::StripPrefix(mark, ".");
  return absl::StrContains(text, ".") ? QuoteRegex(text) : "";
}

}  // namespace

std::optional<size_t> NativeRank(const FamilyRule& rule, const OutputRule& output, size_t hf_rank) {
  if (!output.shape.empty()) return rule.rank;
  return rule.each_expert ? hf_rank + 1 : hf_rank;
}

absl::StatusOr<FamilyInverse> FamilyInverse::Make(const BoundFamily& family) {
  FamilyInverse inverse(family);
  for (const BoundRename& rename : family.renames) {
    absl::StatusOr<NameInverse> back = NameInverse::OfReplacement(rename.find, rename.to);
    if (!back.ok()) return Cannot(rename.rule->where, back.status());
    inverse.renames_.push_back(*std::move(back));
  }
  std::vector<std::string> marks;
  for (const BoundRule& rule : family.rules) {
    for (size_t i = 0; i < rule.outputs.size(); ++i) {
      absl::StatusOr<NameInverse> back = InverseOf(rule, rule.outputs[i]);
      if (!back.ok()) return Cannot(rule.rule->where, back.status());
      inverse.outputs_.push_back({&rule, i, *std::move(back)});
      std::string mark = rule.rule->experts ? MarkOf(rule.outputs[i]) : "";
      if (!mark.empty()) marks.push_back(std::move(mark));
    }
  }
  if (marks.empty()) return inverse;
  marks.emplace_back(kAnyExpert);
  absl::StatusOr<std::shared_ptr<const PythonRegex>> any = PythonRegex::Compile(absl::StrJoin(marks, "|"));
  if (!any.ok()) return any.status();
  inverse.an_experts_ = *std::move(any);
  return inverse;
}

std::vector<std::string> FamilyInverse::BeforeRenames(const std::string& hf) const {
  std::vector<std::string> names = {hf};
  for (size_t i = renames_.size(); i-- > 0;) {
    const BoundRename& rename = family_->renames[i];
    std::vector<std::string> before;
    for (std::string& name : names) {
      const bool may = rename.back == nullptr || rename.back->Search(name);
      std::optional<NameInverse::Found> found = may ? renames_[i].Find(name) : std::nullopt;
      if (found.has_value()) before.push_back(std::move(found->name));
      before.push_back(std::move(name));
    }
    if (before.size() > kMaxNames) before.resize(kMaxNames);
    names = std::move(before);
  }
  return names;
}

// The name that the output has if it comes of the native name that was found; nullopt if another rule would make it.
std::optional<std::string> FamilyInverse::HfNameOf(const Output& output, const NameInverse::Found& found,
                                                   size_t hf_rank) const {
  const BoundRule& rule = *output.rule;
  const BoundOutput& made = rule.outputs[output.index];
  const size_t rank = NativeRank(*rule.rule, *made.rule, hf_rank).value_or(hf_rank);
  if (RuleFor(*family_, found.name, rank) != &rule) return std::nullopt;
  const std::optional<NameFinder::Found> text = rule.when.back().Find(found.name);
  const absl::StatusOr<std::string> name = OutputName(rule, made, *text, found.name);
  if (!name.ok()) return std::nullopt;
  if (!rule.rule->each_expert) return Renamed(*family_, *name);
  return Renamed(*family_, ExpertTemplate(*name).Of(found.expert.value_or("")));
}

bool FamilyInverse::LooksLikeAnExpert(absl::string_view name) const {
  return an_experts_ != nullptr && an_experts_->Search(name);
}

absl::StatusOr<HfOrigin> FamilyInverse::OriginOf(const TensorSpec& hf) const {
  if (LooksLikeAnExpert(hf.name) && Quantised().Search(hf.name)) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor ", hf.ToString(), " is of a quantised checkpoint; dequantise it before"));
  }
  const std::vector<std::string> names = BeforeRenames(hf.name);
  for (const std::string& name : names) {
    for (const Output& output : outputs_) {
      std::optional<NameInverse::Found> found = output.inverse.Find(name);
      if (!found.has_value() || HfNameOf(output, *found, hf.shape.size()) != hf.name) continue;
      HfOrigin origin{std::move(found->name), output.rule, output.index, std::nullopt};
      if (!output.rule->rule->each_expert) return origin;
      int32_t expert = 0;  // one more than the last is their number, which must not overflow
      if (!absl::SimpleAtoi(*found->expert, &expert) || absl::StrCat(expert) != *found->expert) {
        return absl::InvalidArgumentError(absl::StrCat("tensor ", Printable(hf.name), ": ", Printable(*found->expert),
                                                       " is no expert's number; they are 0, 1, 2 and so on"));
      }
      origin.expert = expert;
      return origin;
    }
  }
  if (LooksLikeAnExpert(hf.name)) {
    return absl::InvalidArgumentError(absl::StrCat("tensor ", hf.ToString(),
                                                   ": it looks like an expert's, but no rule makes such a name (is its "
                                                   "prefix another, or is it of another family or layout?)"));
  }
  for (const std::string& name : names) {
    if (RuleFor(*family_, name, hf.shape.size()) == nullptr && Renamed(*family_, name) == hf.name)
      return HfOrigin{name};
  }
  return absl::InvalidArgumentError(absl::StrCat("tensor ", hf.ToString(),
                                                 ": no native name becomes this one; a native tensor of this name "
                                                 "would be changed itself"));
}

}  // namespace refit
