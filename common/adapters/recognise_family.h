// Recognises a model family by the names of its native tensors.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/adapters/plan.h"
#include "refit/tensor_spec.h"

namespace refit {

// The adapter's name that asks for this.
inline constexpr absl::string_view kAutoAdapter = "auto";

struct RecognisedFamily {
  std::string name;
  std::string why;  // "model.layers.0.mlp.experts.gate_and_up_projs, model.layers.0.self_attn.q_norm.weight"
};

// `identity` if no family has these names, and nothing looks like a trainer's own layout. A family whose plan refuses
// the shapes does not fit. INVALID_ARGUMENT, saying what to ask for, if several families fit, if none does for its
// shapes, if only somebody who knows the engine can say, or if there are names of a trainer's own layout that no family
// has.
absl::StatusOr<RecognisedFamily> RecogniseFamily(absl::Span<const TensorSpec> native);

// INVALID_ARGUMENT, naming the tensor, for a name that a wrapper of the module has changed, such as
// `_checkpoint_wrapped_module`: an adapter's rules would miss it.
absl::Status CheckNotWrapped(absl::Span<const TensorSpec> native);

// Whether only a trainer's own layout has such a name.
bool IsNativeName(absl::string_view name);

// Outputs that still have a name of the trainer's own layout: probably no rule knew them. A sentence for each of the
// first few.
std::vector<std::string> NearMisses(absl::string_view adapter, const VersionPlan& plan);

}  // namespace refit
