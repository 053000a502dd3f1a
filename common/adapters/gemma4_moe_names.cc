#include "common/adapters/gemma4_moe_names.h"

#include <re2/re2.h>

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

namespace refit::gemma4 {
namespace {

// The patterns spell out Python's `$` and `\d`, which the reference uses.
constexpr char kNativeRouter[] = R"((layers\.\p{Nd}+)\.moe\.gate\.(proj\.weight|scale)(?:\n?\z))";
constexpr char kHfRouter[] = R"((layers\.\p{Nd}+)\.router\.(proj\.weight|scale|per_expert_scale)(?:\n?\z))";
constexpr char kHfExpert[] =
    R"((layers\.\p{Nd}+)\.(?:moe|experts)\.(gate_up_proj|down_proj|per_expert_scale)(?:\n?\z))";

re2::StringPiece Piece(absl::string_view text) { return {text.data(), text.size()}; }

std::optional<LayerPart> Find(const RE2& re, absl::string_view name) {
  LayerPart found;
  if (!RE2::PartialMatch(Piece(name), re, &found.layer, &found.part)) return std::nullopt;
  return found;
}

std::optional<std::string> FindLayer(const RE2& re, absl::string_view name) {
  std::string layer;
  if (!RE2::PartialMatch(Piece(name), re, &layer)) return std::nullopt;
  return layer;
}

// Replaces every occurrence, like Python's str.replace.
std::string RenameRouter(absl::string_view name, const LayerPart& router, absl::string_view from,
                         absl::string_view to) {
  return absl::StrReplaceAll(
      name, {{absl::StrCat(router.layer, from, router.part), absl::StrCat(router.layer, to, router.part)}});
}

}  // namespace

std::optional<LayerPart> FindHfRouter(absl::string_view name) {
  static const RE2 re(kHfRouter);
  return Find(re, name);
}

std::optional<LayerPart> FindHfExpert(absl::string_view name) {
  static const RE2 re(kHfExpert);
  return Find(re, name);
}

std::optional<std::string> HfRouterName(absl::string_view native) {
  static const RE2 re(kNativeRouter);
  const std::optional<LayerPart> router = Find(re, native);
  if (!router.has_value()) return std::nullopt;
  return RenameRouter(native, *router, ".moe.gate.", ".router.");
}

std::string NativeRouterName(absl::string_view hf, const LayerPart& router) {
  return RenameRouter(hf, router, ".router.", ".moe.gate.");
}

Role RoleOf(absl::string_view native) {
  if (absl::StrContains(native, kGateAndUpNative)) return Role::kGateAndUp;
  if (absl::StrContains(native, kDownNative)) return Role::kDown;
  return Role::kOther;
}

std::optional<std::string> UpToLastLayer(absl::string_view native) {
  static const RE2 re(R"((.*layers\.\p{Nd}+)\.)");
  return FindLayer(re, native);
}

std::optional<std::string> FirstLayer(absl::string_view native) {
  static const RE2 re(R"((layers\.\p{Nd}+))");
  return FindLayer(re, native);
}

absl::string_view ModelPrefix(absl::Span<const TensorSpec> tensors) {
  const bool has_prefix = std::any_of(tensors.begin(), tensors.end(),
                                      [](const TensorSpec& spec) { return absl::StartsWith(spec.name, "model."); });
  return has_prefix ? "model." : "";
}

}  // namespace refit::gemma4
