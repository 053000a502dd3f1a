// Which shards a rank of a trainer's device mesh holds.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "refit/box.h"
#include "refit/layout_rule.h"

namespace refit {

// A mesh as NeMo Automodel lays it out: the tensor-parallel group innermost, then, for experts, "ep" and "ep_shard",
// and for ordinary tensors the FSDP group; what is left of `world` holds replicas. All sizes at least 1.
struct Mesh {
  uint32_t world = 1;
  uint32_t ep_size = 1;        // experts, dimension 0, balanced
  uint32_t ep_shard_size = 1;  // experts, dimension 1, as torch.chunk
  uint32_t fsdp_size = 1;      // ordinary tensors, dimension 0, as torch.chunk
  uint32_t tp_size = 1;        // as tp_rules say
  // Which dimension of which tensors the tensor-parallel group cuts; `part` and `parts` are filled in.
  std::vector<LayoutRule> tp_rules;
};

// The functions below only compute: they may be called from any thread, in any order.

// The rules that give rank's shards. INVALID_ARGUMENT, saying what does not fit, if a size is 0, tp_size * ep_size *
// ep_shard_size or tp_size * fsdp_size does not divide world, or rank is not below world.
absl::StatusOr<std::vector<LayoutRule>> RulesOfRank(const Mesh& mesh, uint32_t rank);

// The shards of native tensors that these rules give, for Publisher::OpenShards; which of them hold experts is what the
// adapter says. NOT_FOUND for an adapter that there is not, or a rule that applies to no tensor; INVALID_ARGUMENT,
// naming the tensor, for one that the adapter cannot convert, or that a rule does not fit.
absl::StatusOr<std::vector<TensorPart>> ShardsOf(absl::Span<const LayoutRule> rules, const std::string& adapter,
                                                 std::vector<TensorSpec> native);

}  // namespace refit
