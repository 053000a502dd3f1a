// Options that say which part of the tensors one process has: a rank of a sharded push, a worker of a parallel group.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/cli/options/native_options.h"
#include "client/native/shard_source.h"
#include "refit/layout_rule.h"
#include "refit/mesh.h"

namespace refit::cli {

// Of `push`.
struct RankOptions {
  uint32_t rank = 0;
  Mesh mesh{.world = 0};  // world 0: not given, no sharded push; without tp_rules, which a file has
  std::string tp_rules;
  bool mesh_given = false;  // any of the sizes

  bool given() const { return mesh.world > 0; }
  bool is_sharded() const { return mesh.world > 1; }
};

void AddRankOptions(CLI::App* command, RankOptions& options);

// After parsing: throws CLI::ValidationError, saying what does not fit, for a combination that makes no mesh, or a
// sharded push without a version.
void CheckRankOptions(CLI::App* command, RankOptions& options, bool has_version);

// What this rank pushes: shards as the files hold them, or cut as the mesh says. Errors as those of ShardSource,
// ReadTpRules and ShardsOf; a usage error for a mesh together with files that hold shards already, or for such files
// without a rank.
absl::StatusOr<std::shared_ptr<const ShardSource>> OpenShards(const NativeOptions& native, const RankOptions& options);

// Of `pull`.
struct PartOptions {
  uint64_t ep_rank = 0;
  uint64_t ep_size = 0;  // 0: not given
  uint64_t tp_rank = 0;
  uint64_t tp_size = 0;
  std::string tp_rules;

  bool given() const { return ep_size > 0 || tp_size > 0; }
  // "experts 3 of 8, tensor-parallel part 0 of 2"; empty for a whole pull.
  std::string ToString() const;
  // Errors as ReadTpRules.
  absl::StatusOr<std::vector<LayoutRule>> Rules() const;
};

void AddPartOptions(CLI::App* command, PartOptions& options);

// After parsing: throws CLI::ValidationError for a rank that is not below its size.
void CheckPartOptions(const PartOptions& options);

}  // namespace refit::cli
