// What tensors of Gemma4 MoE are called, native and in HF. Private to common/adapters.
#pragma once

#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "refit/tensor_spec.h"

namespace refit::gemma4 {

inline constexpr absl::string_view kGateAndUpNative = ".moe.experts.gate_and_up_projs";
inline constexpr absl::string_view kGateAndUpHf = ".experts.gate_up_proj";
inline constexpr absl::string_view kDownNative = ".moe.experts.down_projs";
inline constexpr absl::string_view kDownHf = ".experts.down_proj";
inline constexpr absl::string_view kScaleHf = ".router.per_expert_scale";

inline constexpr absl::string_view kGateUpPart = "gate_up_proj";
inline constexpr absl::string_view kDownPart = "down_proj";
inline constexpr absl::string_view kScalePart = "per_expert_scale";

// The part of a name that decides about the rest.
struct LayerPart {
  std::string layer;  // "layers.N"
  std::string part;
};
// Of HF names; nullopt for others.
std::optional<LayerPart> FindHfRouter(absl::string_view name);
std::optional<LayerPart> FindHfExpert(absl::string_view name);

// A native router's name in HF; nullopt for other tensors.
std::optional<std::string> HfRouterName(absl::string_view native);
// The native name of an HF router of this layer.
std::string NativeRouterName(absl::string_view hf, const LayerPart& router);

// The native tensor's role. The tests come in the reference's order; routers are handled before.
enum class Role { kGateAndUp, kDown, kOther };
Role RoleOf(absl::string_view native);

// Of a native name: all of it up to its last "layers.N", or its first "layers.N" alone. Nullopt if it has none.
std::optional<std::string> UpToLastLayer(absl::string_view native);
std::optional<std::string> FirstLayer(absl::string_view native);

// "model." if names begin with that.
absl::string_view ModelPrefix(absl::Span<const TensorSpec> tensors);

}  // namespace refit::gemma4
