// The Gemma4 MoE state-dict adapter for at::Tensor. Its methods are those of NeMo Automodel's
// Gemma4MoEStateDictAdapter.
//
// The plan (gemma4_moe_plan.h) gives names and shapes; this file computes values. Errors are statuses; nothing throws.
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

// Ordered, like Python's dict. Names are unique.
using StateDict = std::vector<std::pair<std::string, TypedTensor>>;

// Immutable, thread-safe.
class Gemma4MoEStateDictAdapter {
 public:
  // `dtype`: the dtype of the expert tensors that from_hf makes, and of the scale that to_hf makes.
  explicit Gemma4MoEStateDictAdapter(const Gemma4MoeConfig& config, DType dtype = DType::kF32)
      : config_(config), dtype_(dtype) {}

  // Converts HF to native: transposes experts, multiplies per_expert_scale into down_projs, slices for this rank of the
  // mesh, and casts. Errors as PlanGemma4MoeFromHf.
  absl::StatusOr<StateDict> from_hf(const StateDict& hf_state_dict, const ExpertMesh& mesh = {}) const;

  // Converts native to HF. `exclude_key_regex` (Python re.match; empty: none) is matched against HF names.
  // `quantization` is ignored, as in the reference. Errors as PlanGemma4MoeToHf and PythonRegex::Compile.
  absl::StatusOr<StateDict> to_hf(const StateDict& state_dict, absl::string_view exclude_key_regex = "",
                                  bool quantization = false) const;

  // The keys of to_hf's result without `.*_extra_state.*`, in order. Needs only names and shapes.
  absl::StatusOr<std::vector<std::string>> get_hf_state_dict_keys(absl::Span<const TensorSpec> native) const;
  absl::StatusOr<std::vector<std::string>> get_hf_state_dict_keys(const StateDict& state_dict) const;

  // Converts one native tensor to HF, for streaming. A tensor that passes unchanged is not copied. The scale is in host
  // memory. Errors as Adapter::PlanTensor and Validate(options).
  absl::StatusOr<StateDict> convert_single_tensor_to_hf(absl::string_view fqn, const TypedTensor& tensor,
                                                        const ConvertOptions& options = {}) const;

 private:
  Gemma4MoeConfig config_;
  DType dtype_;
};

// Computes the values of one planned output. Errors name the output.
absl::StatusOr<TypedTensor> MakeHfTensor(const PlannedOutput& output, const TypedTensor& native);

// Computes the values of one output of from_hf. Only kScaledDown uses `scale`.
absl::StatusOr<TypedTensor> MakeNativeTensor(const NativeOutput& output, const TypedTensor& source,
                                             const TypedTensor& scale);

}  // namespace refit
