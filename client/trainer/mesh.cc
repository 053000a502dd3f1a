#include "refit/mesh.h"

#include <algorithm>
#include <limits>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/adapters/adapter_registry.h"
#include "common/adapters/layout_rules.h"
#include "common/adapters/plan.h"

namespace refit {
namespace {

struct Axis {
  const char* name;
  uint32_t size;
};

absl::Status CheckSizes(const Mesh& mesh) {
  for (const auto& [name, size] :
       {Axis{"world", mesh.world}, Axis{"tp_size", mesh.tp_size}, Axis{"ep_size", mesh.ep_size},
        Axis{"ep_shard_size", mesh.ep_shard_size}, Axis{"fsdp_size", mesh.fsdp_size}}) {
    if (size == 0) return absl::InvalidArgumentError(absl::StrCat("mesh: ", name, " is 0; expected at least 1"));
  }
  return absl::OkStatus();
}

// Divides by one size after the other, because the product of the sizes may overflow.
absl::Status CheckDivides(uint32_t world, absl::Span<const Axis> axes) {
  uint32_t rest = world;
  std::string product;
  bool divides = true;
  for (const auto& [name, size] : axes) {
    absl::StrAppend(&product, product.empty() ? "" : " * ", name, " ", size);
    divides = divides && rest % size == 0;
    rest /= size;
  }
  if (divides) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("mesh: ", product, " does not divide world ", world));
}

absl::Status Check(const Mesh& mesh, uint32_t rank) {
  if (absl::Status status = CheckSizes(mesh); !status.ok()) return status;
  const Axis tp{"tp_size", mesh.tp_size};
  const Axis ep{"ep_size", mesh.ep_size};
  const Axis ep_shard{"ep_shard_size", mesh.ep_shard_size};
  if (absl::Status status = CheckDivides(mesh.world, {tp, ep, ep_shard}); !status.ok()) return status;
  if (absl::Status status = CheckDivides(mesh.world, {tp, {"fsdp_size", mesh.fsdp_size}}); !status.ok()) return status;
  if (rank < mesh.world) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("mesh: rank ", rank, " is not below world ", mesh.world));
}

absl::StatusOr<bool> HoldsExperts(const Adapter& adapter, const TensorSpec& native) {
  const absl::StatusOr<std::vector<PlannedOutput>> outputs = adapter.PlanTensor(native, {});
  if (!outputs.ok()) return outputs.status();
  return std::any_of(outputs->begin(), outputs->end(),
                     [](const PlannedOutput& output) { return output.native_experts; });
}

absl::StatusOr<TensorPart> ShardOf(LayoutRules& rules, const Adapter& adapter, TensorSpec native) {
  // The service limits the length of names, not the client.
  if (absl::Status status = Validate(native, std::numeric_limits<size_t>::max()); !status.ok()) return status;
  const absl::StatusOr<bool> experts = HoldsExperts(adapter, native);
  if (!experts.ok()) return experts.status();
  absl::StatusOr<Box> box = rules.BoxOf(native, *experts);
  if (!box.ok()) return box.status();
  return TensorPart{std::move(native), *std::move(box)};
}

}  // namespace

absl::StatusOr<std::vector<LayoutRule>> RulesOfRank(const Mesh& mesh, uint32_t rank) {
  if (absl::Status status = Check(mesh, rank); !status.ok()) return status;
  const uint32_t within_tp = rank % mesh.tp_size;
  const uint32_t outside_tp = rank / mesh.tp_size;
  std::vector<LayoutRule> rules = mesh.tp_rules;
  for (LayoutRule& rule : rules) {
    rule.part = within_tp;
    rule.parts = mesh.tp_size;
  }
  using Scope = LayoutRule::Scope;
  rules.push_back({Scope::kExperts, "", 0, outside_tp % mesh.ep_size, mesh.ep_size, Split::kBalanced});
  rules.push_back(
      {Scope::kExperts, "", 1, outside_tp / mesh.ep_size % mesh.ep_shard_size, mesh.ep_shard_size, Split::kCeil});
  rules.push_back({Scope::kOrdinary, "", 0, outside_tp % mesh.fsdp_size, mesh.fsdp_size, Split::kCeil});
  // A rule that splits nothing need not apply to any tensor either.
  rules.erase(std::remove_if(rules.begin(), rules.end(), [](const LayoutRule& rule) { return rule.parts == 1; }),
              rules.end());
  return rules;
}

absl::StatusOr<std::vector<TensorPart>> ShardsOf(absl::Span<const LayoutRule> rules, const std::string& adapter,
                                                 std::vector<TensorSpec> native,
                                                 const std::map<std::string, std::string>& adapter_options) {
  absl::StatusOr<LayoutRules> compiled = LayoutRules::Compile(rules);
  if (!compiled.ok()) return compiled.status();
  const absl::StatusOr<std::shared_ptr<const Adapter>> found = FindAdapter(adapter, adapter_options, native);
  if (!found.ok()) return found.status();
  std::vector<TensorPart> shards;
  shards.reserve(native.size());
  for (TensorSpec& spec : native) {
    absl::StatusOr<TensorPart> shard = ShardOf(*compiled, **found, std::move(spec));
    if (!shard.ok()) return shard.status();
    shards.push_back(*std::move(shard));
  }
  if (absl::Status status = compiled->CheckAllApplied(); !status.ok()) return status;
  return shards;
}

}  // namespace refit
