// Options that select parts of tensors: a rank of a sharded push, or a worker of a parallel group.
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

// Options of `push`.
struct RankOptions {
  uint32_t rank = 0;
  Mesh mesh{.world = 0};  // world 0: not given, so the push is not sharded; tp_rules are read from a file later
  std::string tp_rules;
  bool mesh_given = false;  // whether any of the sizes was given

  bool given() const { return mesh.world > 0; }
  bool is_sharded() const { return mesh.world > 1; }
};

void AddRankOptions(CLI::App* command, RankOptions& options);

// Call it after parsing. Throws CLI::ValidationError if the options are not a valid mesh, or if a sharded push has no
// version.
void CheckRankOptions(CLI::App* command, RankOptions& options, bool has_version);

// Opens the shards that this rank pushes: as the files hold them, or cut according to the mesh. Errors are those of
// ShardSource, ReadTpRules and ShardsOf. A mesh with files that hold shards already is a usage error, and so are such
// files without a rank.
absl::StatusOr<std::shared_ptr<const ShardSource>> OpenShards(const NativeOptions& native, const RankOptions& options);

// Options of `pull`.
struct PartOptions {
  uint64_t ep_rank = 0;
  uint64_t ep_size = 0;  // 0: not given
  uint64_t tp_rank = 0;
  uint64_t tp_size = 0;
  std::string tp_rules;

  bool given() const { return ep_size > 0 || tp_size > 0; }
  // "experts 3 of 8, tensor-parallel part 0 of 2"; empty for a whole pull.
  std::string ToString() const;
  // The layout rules that select these parts. Errors as ReadTpRules.
  absl::StatusOr<std::vector<LayoutRule>> Rules() const;
};

void AddPartOptions(CLI::App* command, PartOptions& options);

// Call it after parsing. Throws CLI::ValidationError if a rank is not below its size.
void CheckPartOptions(const PartOptions& options);

}  // namespace refit::cli
