#include "common/adapters/prefix_check.h"

#include <map>
#include <optional>
#include <string>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/adapters/family_names.h"

namespace refit {
namespace {

constexpr absl::string_view kModelPrefix = "model.";
constexpr absl::string_view kLayers = "layers.";

// What stands before the first "layers.N." of a name; nullopt if there is none.
std::optional<absl::string_view> LayerPrefix(absl::string_view name) {
  for (size_t at = name.find(kLayers); at != absl::string_view::npos; at = name.find(kLayers, at + 1)) {
    if (at > 0 && name[at - 1] != '.') continue;
    size_t end = at + kLayers.size();
    while (end < name.size() && absl::ascii_isdigit(name[end])) ++end;
    if (end > at + kLayers.size() && end < name.size() && name[end] == '.') return name.substr(0, at);
  }
  return std::nullopt;
}

bool BuildsNameAnew(const BoundRule* rule) {
  return rule != nullptr &&
         absl::c_any_of(rule->outputs, [](const BoundOutput& output) { return output.parts.has_value(); });
}

// What the names of layers with one native prefix become.
struct PrefixUse {
  absl::string_view native;  // of the first tensor
  absl::string_view hf;
};

class Checker {
 public:
  Checker(const Family& family, const BoundFamily& bound, const VersionPlan& plan)
      : family_(family), bound_(bound), plan_(plan) {}

  absl::Status Run() const {
    if (absl::Status status = CheckOnePrefix(); !status.ok()) return status;
    return CheckOthersKnowMore();
  }

 private:
  absl::Status CheckOnePrefix() const {
    if (bound_.drops_model_prefix) return absl::OkStatus();
    std::map<absl::string_view, PrefixUse> built;
    std::map<absl::string_view, PrefixUse> passed;
    for (size_t i = 0; i < plan_.native.size(); ++i) {
      const TensorSpec& native = plan_.native[i];
      const std::optional<absl::string_view> prefix = LayerPrefix(native.name);
      if (!prefix.has_value() || plan_.outputs_of_native[i].empty()) continue;
      const std::string& hf = plan_.outputs[plan_.outputs_of_native[i].front()].planned.hf.name;
      if (!LayerPrefix(hf).has_value()) continue;
      const BoundRule* const rule = RuleFor(bound_, native.name, native.shape.size());
      if (rule != nullptr && !BuildsNameAnew(rule)) continue;
      (rule == nullptr ? passed : built).emplace(*prefix, PrefixUse{native.name, hf});
    }
    for (const auto& [prefix, use] : built) {
      const auto other = passed.find(prefix);
      if (other == passed.end() || LayerPrefix(other->second.hf) == LayerPrefix(use.hf)) continue;
      return HalfConverted(use, other->second);
    }
    return absl::OkStatus();
  }

  absl::Status HalfConverted(const PrefixUse& built, const PrefixUse& passed) const {
    const bool has_option =
        absl::c_any_of(family_.options, [](const FamilyOption& option) { return option.name == kModelPrefixOption; });
    return absl::InvalidArgumentError(absl::StrCat(
        "tensor ", Printable(built.native), " becomes ", Printable(built.hf), ", but tensor ", Printable(passed.native),
        " becomes ", Printable(passed.hf), ": the trainer's names have another prefix than adapter ", family_.name,
        " expects, and would be half converted; rename them",
        has_option ? absl::StrCat(" (or say ", kModelPrefixOption, "=false if it is meant)") : ""));
  }

  bool Knows(const std::string& name, size_t rank) const {
    return RuleFor(bound_, name, rank) != nullptr || Renamed(bound_, name) != name;
  }

  // Whether rules and renames know more of the names that begin with `from` if they begin with `to`.
  absl::Status CompareWith(absl::string_view from, absl::string_view to) const {
    size_t known = 0;
    size_t known_then = 0;
    const TensorSpec* example = nullptr;
    std::string then;
    for (const TensorSpec& native : plan_.native) {
      const bool is_meant = from.empty() ? LayerPrefix(native.name) == "" : absl::StartsWith(native.name, from);
      if (!is_meant) continue;
      const std::string other = absl::StrCat(to, native.name.substr(from.size()));
      const bool knows = Knows(native.name, native.shape.size());
      const bool knows_then = Knows(other, native.shape.size());
      known += knows ? 1 : 0;
      known_then += knows_then ? 1 : 0;
      if (knows || !knows_then || example != nullptr) continue;
      example = &native;
      then = other;
    }
    if (known_then <= known || example == nullptr) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat("tensor ", Printable(example->name), ": adapter ", family_.name, " would know it as ",
                     Printable(then), "; the trainer's names have another prefix than it expects: rename them"));
  }

  absl::Status CheckOthersKnowMore() const {
    const std::string common = CommonComponent();
    if (!common.empty()) {
      if (absl::Status status = CompareWith(common, ""); !status.ok()) return status;
    }
    if (bound_.drops_model_prefix) return absl::OkStatus();
    return CompareWith("", kModelPrefix);
  }

  // The first component, if all names have the same; with its dot.
  std::string CommonComponent() const {
    if (plan_.native.empty()) return "";
    const std::string& first = plan_.native.front().name;
    const std::string component = first.substr(0, first.find('.') + 1);
    const bool is_common = !component.empty() && absl::c_all_of(plan_.native, [&](const TensorSpec& native) {
      return absl::StartsWith(native.name, component);
    });
    return is_common ? component : "";
  }

  const Family& family_;
  const BoundFamily& bound_;
  const VersionPlan& plan_;
};

}  // namespace

absl::Status CheckPrefixes(const Family& family, const BoundFamily& bound, const VersionPlan& plan) {
  return Checker(family, bound, plan).Run();
}

}  // namespace refit
