// Gemma4 MoE (26B-A4B): which names, dtypes and shapes each conversion makes, from names, dtypes and shapes alone.
//
// The values follow in gemma4_moe_state_dict_adapter.h (at::Tensor) and native_range_writer.h (bytes).
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

// `convert_single_tensor_to_hf`, one tensor at a time: expert names keep the prefix of their native name.
class Gemma4MoeAdapter final : public Adapter {
 public:
  absl::string_view name() const override { return "gemma4_moe"; }
  absl::StatusOr<std::vector<PlannedOutput>> PlanTensor(const TensorSpec& native,
                                                        const ConvertOptions& options) const override;
};

// What the whole-state-dict conversions know of the model.
struct Gemma4MoeConfig {
  int64_t n_routed_experts = 128;
};

// `to_hf`: expert names are rebuilt as {model.}language_model.layers.N.experts.*, the scale has n_routed_experts
// elements of the adapter's dtype, and `exclude` (null: none) is tried on HF names, at the end. Outputs that are
// excluded are in no list of the plan. INVALID_ARGUMENT, naming the tensor, for an expert tensor of rank below 2 or
// without layers.N in its name, a native name that comes twice, or two outputs of one name.
absl::StatusOr<VersionPlan> PlanGemma4MoeToHf(const Gemma4MoeConfig& config, DType adapter_dtype,
                                              std::vector<TensorSpec> native, const PythonRegex* exclude);

// This process's place among those that share the experts. Rank r of "ep" holds a range of experts; rank s of
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

// The experts of `rank`: count / size each, the first count % size ranks one more. INVALID_ARGUMENT for a rank outside
// of [0, size).
absl::StatusOr<IndexRange> ExpertsOfRank(int64_t experts, int64_t rank, int64_t size);

// One tensor that `from_hf` makes.
struct NativeOutput {
  enum class Kind {
    kPass,        // hf[source] as it is
    kGateAndUp,   // hf[source] with the last two dimensions swapped
    kScaledDown,  // the same, times hf[scale] a whole matrix of an expert, in the source dtypes' promotion
  };
  TensorSpec native;  // sliced and cast: what this rank holds
  Kind kind = Kind::kPass;
  size_t source = 0;
  size_t scale = 0;
  IndexRange experts;  // of the native tensor: dimension 0
  IndexRange rows;     // of the native tensor: dimension 1
};

// `from_hf`, in emission order: what passes, then gate_and_up_projs and down_projs layer by layer as the layers first
// came. Both published layouts of expert names are read. INVALID_ARGUMENT, naming layer or tensor, for a layer whose
// gate_up_proj, down_proj or per_expert_scale is missing, an expert count other than n_routed_experts, other wrong
// shapes, dtypes that cannot be multiplied or cast, a mesh that does not divide dimension 1, or two tensors that would
// become one.
absl::StatusOr<std::vector<NativeOutput>> PlanGemma4MoeFromHf(const Gemma4MoeConfig& config, DType adapter_dtype,
                                                              absl::Span<const TensorSpec> hf, const ExpertMesh& mesh);

}  // namespace refit
