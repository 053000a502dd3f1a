// Computes which shards a rank of a trainer's device mesh holds.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "refit/box.h"
#include "refit/layout_rule.h"

namespace refit {

// A mesh in NeMo Automodel's layout. The tensor-parallel group is innermost. Around it are, for experts, "ep" and
// "ep_shard", and for ordinary tensors the FSDP group. The rest of `world` are replicas. All sizes are at least 1.
struct Mesh {
  uint32_t world = 1;
  uint32_t ep_size = 1;        // experts: dimension 0, balanced
  uint32_t ep_shard_size = 1;  // experts: dimension 1, as torch.chunk
  uint32_t fsdp_size = 1;      // ordinary tensors: dimension 0, as torch.chunk
  uint32_t tp_size = 1;        // according to tp_rules
  // Which dimension of which tensors the tensor-parallel group splits. `part` and `parts` are filled in here.
  std::vector<LayoutRule> tp_rules;
};

// The functions below only compute. Any thread may call them, in any order.

// The rules that select the rank's shards. INVALID_ARGUMENT, naming the problem, if a size is 0, if tp_size * ep_size *
// ep_shard_size or tp_size * fsdp_size does not divide world, or if rank is not below world.
absl::StatusOr<std::vector<LayoutRule>> RulesOfRank(const Mesh& mesh, uint32_t rank);

// The shards of native tensors according to these rules, for Publisher::OpenShards. The adapter decides, with the
// options that PublishOptions has too, which tensors hold experts. NOT_FOUND for an unknown adapter, or a rule that
// applies to no tensor; INVALID_ARGUMENT, naming the tensor, for a tensor that the adapter cannot convert, or that a
// rule does not fit.
absl::StatusOr<std::vector<TensorPart>> ShardsOf(absl::Span<const LayoutRule> rules, const std::string& adapter,
                                                 std::vector<TensorSpec> native,
                                                 const std::map<std::string, std::string>& adapter_options = {});

}  // namespace refit
