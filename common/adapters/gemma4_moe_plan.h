// Plans conversions of whole state dicts of Gemma4 MoE (26B-A4B), which look at several tensors at once: computes the
// names, dtypes and shapes of outputs from those of inputs. families/gemma4_moe.toml has the conversion of one tensor.
//
// Values are computed in gemma4_moe_state_dict_adapter.h (at::Tensor) and native_range_writer.h (bytes).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/adapters/plan.h"

namespace refit {

// Facts about the model that the conversions of a whole state dict need.
struct Gemma4MoeConfig {
  int64_t n_routed_experts = 128;
};

// Plans `to_hf`. Expert names become {model.}language_model.layers.N.experts.*, and the scale has n_routed_experts
// elements of the adapter's dtype. `exclude` (null: none) is matched against HF names at the end; excluded outputs are
// in no list of the plan. INVALID_ARGUMENT, naming the tensor, for an expert tensor of rank below 2 or without layers.N
// in its name, a repeated native name, or two outputs with one name.
absl::StatusOr<VersionPlan> PlanGemma4MoeToHf(const Gemma4MoeConfig& config, DType adapter_dtype,
                                              std::vector<TensorSpec> native, const PythonRegex* exclude);

// This process's place in the mesh that shares the experts. Rank r of "ep" holds a range of experts. Rank s of
// "ep_shard" holds a slice of dimension 1 of both expert tensors.
struct ExpertMesh {
  int64_t ep_rank = 0;
  int64_t ep_size = 1;
  int64_t ep_shard_rank = 0;
  int64_t ep_shard_size = 1;
};

// [begin, end) along a dimension.
struct IndexRange {
  int64_t begin = 0;
  int64_t end = 0;
  int64_t size() const { return end - begin; }
};

// The experts of `rank`: count / size each, and one more for the first count % size ranks. INVALID_ARGUMENT for a rank
// outside of [0, size).
absl::StatusOr<IndexRange> ExpertsOfRank(int64_t experts, int64_t rank, int64_t size);

// One tensor that `from_hf` makes.
struct NativeOutput {
  enum class Kind {
    kPass,        // hf[source] unchanged
    kGateAndUp,   // hf[source] with the last two dimensions swapped
    kScaledDown,  // the same, with each expert's matrix multiplied by hf[scale], in the promoted type of both dtypes
  };
  TensorSpec native;  // after slicing and casting: what this rank holds
  Kind kind = Kind::kPass;
  size_t source = 0;
  size_t scale = 0;
  IndexRange experts;  // along dimension 0 of the native tensor
  IndexRange rows;     // along dimension 1 of the native tensor
};

// Plans `from_hf`, in emission order: first the tensors that pass, then gate_and_up_projs and down_projs layer by
// layer, in the order in which the layers first appear. Accepts both published layouts of expert names.
// INVALID_ARGUMENT, naming layer or tensor, for a layer without gate_up_proj, down_proj or per_expert_scale, an expert
// count other than n_routed_experts, other wrong shapes, dtypes that cannot be multiplied or cast, a mesh that does not
// divide dimension 1, or two tensors that would get the same name.
absl::StatusOr<std::vector<NativeOutput>> PlanGemma4MoeFromHf(const Gemma4MoeConfig& config, DType adapter_dtype,
                                                              absl::Span<const TensorSpec> hf, const ExpertMesh& mesh);

}  // namespace refit
