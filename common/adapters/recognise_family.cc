#include "common/adapters/recognise_family.h"

#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/adapters/adapter_registry.h"
#include "common/adapters/family_adapter.h"
#include "common/adapters/python_regex.h"

namespace refit {
namespace {

constexpr size_t kShownNearMisses = 3;

// Components that wrappers of a module put into names.
constexpr absl::string_view kWrappers[] = {"_checkpoint_wrapped_module", "_fsdp_wrapped_module", "_orig_mod",
                                           "_forward_module"};

constexpr absl::string_view kParallel = "module.";

// What only NeMo Automodel's layout has: grouped experts, and the holders of F32 parameters.
constexpr char kNativeLayout[] = R"((?:^|\.)(?:gate_and_up_projs|down_projs)$|\._fp32_params\.)";

const PythonRegex& NativeLayout() {
  static const std::shared_ptr<const PythonRegex> regex = PythonRegex::Compile(kNativeLayout).value();
  return *regex;
}

// The component of a name that a wrapper has put there: anywhere, or, by DistributedDataParallel, in front.
std::optional<absl::string_view> WrapperIn(absl::string_view name) {
  if (absl::StartsWith(name, kParallel)) return kParallel;
  for (const absl::string_view wrapper : kWrappers) {
    if (!absl::StrContains(name, wrapper)) continue;
    for (const absl::string_view component : absl::StrSplit(name, '.')) {
      if (component == wrapper) return wrapper;
    }
  }
  return std::nullopt;
}

// The first name in which the pattern is found.
absl::StatusOr<std::optional<absl::string_view>> FirstWith(const std::string& pattern,
                                                           absl::Span<const TensorSpec> native) {
  const absl::StatusOr<std::shared_ptr<const PythonRegex>> regex = PythonRegex::Compile(pattern);
  if (!regex.ok()) return regex.status();
  for (const TensorSpec& spec : native) {
    if ((*regex)->Search(spec.name)) return spec.name;
  }
  return std::nullopt;
}

// Why the family has these names; nullopt if it has not.
absl::StatusOr<std::optional<std::string>> WhyItFits(const FamilySigns& signs, absl::Span<const TensorSpec> native) {
  std::vector<std::string> found;
  for (const std::string& sign : signs.all) {
    const absl::StatusOr<std::optional<absl::string_view>> name = FirstWith(sign, native);
    if (!name.ok()) return name.status();
    if (!name->has_value()) return std::nullopt;
    found.push_back(Printable(**name));
  }
  for (const std::string& sign : signs.none) {
    const absl::StatusOr<std::optional<absl::string_view>> name = FirstWith(sign, native);
    if (!name.ok()) return name.status();
    if (name->has_value()) return std::nullopt;
  }
  return absl::StrJoin(found, ", ");
}

// Whether the family's rules take these shapes. Options that only check sizes come later.
absl::Status TryPlan(const std::shared_ptr<const Family>& family, absl::Span<const TensorSpec> native) {
  const absl::StatusOr<std::shared_ptr<const Adapter>> adapter = MakeAdapter(family, {});
  if (!adapter.ok()) return adapter.status();
  return PlanVersion(**adapter, {native.begin(), native.end()}, {}).status();
}

absl::Status SayWhich(absl::string_view why) {
  return absl::InvalidArgumentError(
      absl::StrCat("adapter \"auto\": ", why, "; name the adapter (refit adapters lists them)"));
}

absl::StatusOr<RecognisedFamily> NoFamily(absl::Span<const TensorSpec> native) {
  for (const TensorSpec& spec : native) {
    if (!NativeLayout().Search(spec.name)) continue;
    return SayWhich(absl::StrCat("tensor ", Printable(spec.name),
                                 " is of a trainer's own layout, but no family has names like these"));
  }
  return RecognisedFamily{"identity", "no name is one that a family's adapter changes"};
}

}  // namespace

absl::StatusOr<RecognisedFamily> RecogniseFamily(absl::Span<const TensorSpec> native) {
  if (absl::Status status = CheckNotWrapped(native); !status.ok()) return status;
  std::vector<RecognisedFamily> fitting;
  std::vector<std::string> refusals;
  std::string unsure;
  for (const std::shared_ptr<const Family>& family : KnownFamilies()) {
    if (!family->signs.has_value()) continue;
    absl::StatusOr<std::optional<std::string>> why = WhyItFits(*family->signs, native);
    if (!why.ok()) return why.status();
    if (!why->has_value()) continue;
    if (absl::Status status = TryPlan(family, native); !status.ok()) {
      refusals.push_back(absl::StrCat("not ", family->name, ": ", status.message()));
      continue;
    }
    unsure = family->signs->unsure;
    fitting.push_back({family->name, **std::move(why)});
  }
  if (fitting.empty() && !refusals.empty()) {
    return SayWhich(absl::StrCat("no family fits; ", absl::StrJoin(refusals, "; ")));
  }
  if (fitting.empty()) return NoFamily(native);
  if (fitting.size() == 1) {
    if (!unsure.empty()) return SayWhich(unsure);
    for (const std::string& refusal : refusals) absl::StrAppend(&fitting.front().why, "; ", refusal);
    return std::move(fitting.front());
  }
  return SayWhich(absl::StrCat("names like ", fitting.front().why, " are those of ",
                               absl::StrJoin(fitting, " and of ", [](std::string* out, const RecognisedFamily& family) {
                                 absl::StrAppend(out, family.name);
                               })));
}

absl::Status CheckNotWrapped(absl::Span<const TensorSpec> native) {
  for (const TensorSpec& spec : native) {
    const std::optional<absl::string_view> wrapper = WrapperIn(spec.name);
    if (!wrapper.has_value()) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("tensor ", Printable(spec.name), ": a wrapper of the module has put '", *wrapper,
                     "' into its name, and no rule would know it; leave it out of the names"));
  }
  return absl::OkStatus();
}

bool IsNativeName(absl::string_view name) { return NativeLayout().Search(name); }

std::vector<std::string> NearMisses(absl::string_view adapter, const VersionPlan& plan) {
  std::vector<std::string> misses;
  if (adapter == "identity") return misses;
  for (const VersionPlan::Output& output : plan.outputs) {
    if (!NativeLayout().Search(output.planned.hf.name)) continue;
    misses.push_back(absl::StrCat("tensor ", Printable(plan.native[output.native_index].name), " goes out as ",
                                  output.planned.hf.ToString(), ": adapter ", adapter, " has no rule for such a name"));
    if (misses.size() == kShownNearMisses) break;
  }
  return misses;
}

}  // namespace refit
