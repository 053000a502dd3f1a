// The Gemma4 MoE state-dict adapter on at::Tensor, in the terms of NeMo Automodel's Gemma4MoEStateDictAdapter.
//
// Names and shapes come from the plan (gemma4_moe_plan.h), values from here. Errors are statuses; nothing throws.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/adapters/gemma4_moe_plan.h"
#include "refit/torch/tensor.h"

namespace refit {

// In order, as Python's dict keeps it. A name comes once.
using StateDict = std::vector<std::pair<std::string, TypedTensor>>;

// Immutable, thread-safe.
class Gemma4MoEStateDictAdapter {
 public:
  // `dtype`: that of the expert tensors which from_hf makes, and of the scale which to_hf makes.
  explicit Gemma4MoEStateDictAdapter(const Gemma4MoeConfig& config, DType dtype = DType::kF32)
      : config_(config), dtype_(dtype) {}

  // HF to native: experts transposed, per_expert_scale multiplied into down_projs, sliced to this rank of the mesh,
  // cast. Errors as PlanGemma4MoeFromHf.
  absl::StatusOr<StateDict> from_hf(const StateDict& hf_state_dict, const ExpertMesh& mesh = {}) const;

  // Native to HF. `exclude_key_regex` (Python re.match; empty: none) is tried on HF names. `quantization` is ignored,
  // as in the reference. Errors as PlanGemma4MoeToHf, and as PythonRegex::Compile.
  absl::StatusOr<StateDict> to_hf(const StateDict& state_dict, absl::string_view exclude_key_regex = "",
                                  bool quantization = false) const;

  // The keys that to_hf gives without `.*_extra_state.*`, in order, from names and shapes alone.
  absl::StatusOr<std::vector<std::string>> get_hf_state_dict_keys(absl::Span<const TensorSpec> native) const;
  absl::StatusOr<std::vector<std::string>> get_hf_state_dict_keys(const StateDict& state_dict) const;

  // One native tensor to HF, for streaming. Tensors that only pass are not copied; the scale is in host memory. Errors
  // as Adapter::PlanTensor, and as Validate(options).
  absl::StatusOr<StateDict> convert_single_tensor_to_hf(absl::string_view fqn, const TypedTensor& tensor,
                                                        const ConvertOptions& options = {}) const;

 private:
  Gemma4MoeConfig config_;
  DType dtype_;
};

// The values of one planned output. Errors name the output.
absl::StatusOr<TypedTensor> MakeHfTensor(const PlannedOutput& output, const TypedTensor& native);

// The values of one output of from_hf. `scale` is used by kScaledDown alone.
absl::StatusOr<TypedTensor> MakeNativeTensor(const NativeOutput& output, const TypedTensor& source,
                                             const TypedTensor& scale);

}  // namespace refit
