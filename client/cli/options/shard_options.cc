#include "client/cli/options/shard_options.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/cli/options/options.h"
#include "client/cli/options/tp_rules.h"
#include "client/cli/run/exit_code.h"
#include "refit/publisher.h"

namespace refit::cli {
namespace {

const char kRankGroup[] = "One rank of a sharded trainer";
const char kPartGroup[] = "A part of the tensors";
const char kTpRulesHelp[] =
    "Which dimension of which tensors tensor parallelism cuts: a line each, `<dimension> <RE2 pattern>`; each "
    "tensor in one line at most";

const char* const kMeshOptions[] = {"--ep-size", "--ep-shard-size", "--fsdp-size", "--tp-size"};

template <typename Number>
CLI::Option* AddNumber(CLI::App* command, const char* group, const std::string& name, Number& value, int64_t least,
                       const std::string& help) {
  return command->add_option(name, value, help)->check(AtLeast(least))->type_name("N")->group(group);
}

// Each of the two options requires the other.
void Need(CLI::Option* a, CLI::Option* b) {
  a->needs(b);
  b->needs(a);
}

void CheckBelow(const char* rank_option, uint64_t rank, const char* size_option, uint64_t size) {
  if (size == 0 || rank < size) return;
  throw CLI::ValidationError(rank_option, absl::StrCat(rank, " is not below ", size_option, " ", size));
}

absl::StatusOr<std::shared_ptr<const ShardSource>> CutAsTheMeshSays(std::shared_ptr<const NativeSource> source,
                                                                    const AdapterChoice& adapter,
                                                                    const RankOptions& options) {
  if (!options.given()) return ShardSource::Whole(std::move(source));
  Mesh mesh = options.mesh;
  if (!options.tp_rules.empty()) {
    absl::StatusOr<std::vector<LayoutRule>> rules = ReadTpRules(options.tp_rules);
    if (!rules.ok()) return rules.status();
    mesh.tp_rules = *std::move(rules);
  }
  const absl::StatusOr<std::vector<LayoutRule>> rules = RulesOfRank(mesh, options.rank);
  if (!rules.ok()) return rules.status();
  absl::StatusOr<std::vector<TensorPart>> shards = ShardsOf(*rules, adapter.name, source->tensors(), adapter.options);
  if (!shards.ok()) return shards.status();
  return ShardSource::Cut(std::move(source), *std::move(shards));
}

absl::Status NeedsRank(const std::string& path) {
  return UsageError(absl::StrCat(Printable(path), " holds one rank's shards: --rank and --world are needed"));
}

absl::Status CheckFileOfShards(const std::string& path, const ShardSource& shards, const RankOptions& options) {
  if (options.mesh_given) {
    return UsageError(absl::StrCat(Printable(path), " holds shards already; ", absl::StrJoin(kMeshOptions, ", "),
                                   " are for files of whole tensors"));
  }
  const auto is_whole = [](const TensorPart& shard) { return shard.is_whole(); };
  if (options.given() || std::all_of(shards.shards().begin(), shards.shards().end(), is_whole)) return absl::OkStatus();
  return NeedsRank(path);
}

LayoutRule ExpertRule(const PartOptions& options) {
  LayoutRule rule;
  rule.scope = LayoutRule::Scope::kExperts;
  rule.part = options.ep_rank;
  rule.parts = options.ep_size;
  return rule;
}

}  // namespace

void AddRankOptions(CLI::App* command, RankOptions& options) {
  const auto add = [&](const std::string& name, uint32_t& value, int64_t least, const std::string& help) {
    return AddNumber(command, kRankGroup, name, value, least, help);
  };
  CLI::Option* rank = add("--rank", options.rank, 0, "Which of the trainer's ranks this process is, from 0");
  Need(rank, add("--world", options.mesh.world, 1, "How many ranks push the version together; needs --version"));
  add("--ep-size", options.mesh.ep_size, 1, "Expert parallelism: parts of dimension 0 of expert tensors")->needs(rank);
  add("--ep-shard-size", options.mesh.ep_shard_size, 1, "Parts of dimension 1 of expert tensors")->needs(rank);
  add("--fsdp-size", options.mesh.fsdp_size, 1, "Parts of dimension 0 of all other tensors")->needs(rank);
  CLI::Option* tp_size =
      add("--tp-size", options.mesh.tp_size, 1, "Tensor parallelism: parts of what --tp-rules names")->needs(rank);
  Need(tp_size,
       command->add_option("--tp-rules", options.tp_rules, kTpRulesHelp)->type_name("FILE")->group(kRankGroup));
}

void CheckRankOptions(CLI::App* command, RankOptions& options, bool has_version) {
  for (const char* option : kMeshOptions) options.mesh_given |= command->count(option) > 0;
  if (!options.given()) return;
  CheckBelow("--rank", options.rank, "--world", options.mesh.world);
  if (const absl::Status status = RulesOfRank(options.mesh, options.rank).status(); !status.ok()) {
    throw CLI::ValidationError("--world", std::string(status.message()));
  }
  if (options.is_sharded() && !has_version) {
    throw CLI::ValidationError("--version", "needed with --world: ranks cannot guess the same number");
  }
}

absl::StatusOr<std::shared_ptr<const ShardSource>> OpenShards(const NativeOptions& native, const RankOptions& options) {
  if (!native.path.empty()) {
    absl::StatusOr<CheckpointOptions> reading = native.ReadingOptions();
    if (!reading.ok()) return reading.status();
    if (Checkpoint::RankOfFile(native.path).has_value()) {
      if (!options.given()) return NeedsRank(native.path);
      reading->ranks = options.mesh.world;
    }
    absl::StatusOr<std::shared_ptr<const ShardSource>> shards = ShardSource::OpenFiles(native.path, *reading);
    if (!shards.ok()) return shards.status();
    if (*shards != nullptr) {
      const absl::Status status = CheckFileOfShards(native.path, **shards, options);
      if (!status.ok()) return status;
      return shards;
    }
  }
  absl::StatusOr<std::shared_ptr<const NativeSource>> source = native.Open();
  if (!source.ok()) return source.status();
  return CutAsTheMeshSays(*std::move(source), native.adapter, options);
}

std::string PartOptions::ToString() const {
  std::vector<std::string> parts;
  if (ep_size > 0) parts.push_back(absl::StrCat("experts ", ep_rank, " of ", ep_size));
  if (tp_size > 0) parts.push_back(absl::StrCat("tensor-parallel part ", tp_rank, " of ", tp_size));
  return absl::StrJoin(parts, ", ");
}

absl::StatusOr<std::vector<LayoutRule>> PartOptions::Rules() const {
  std::vector<LayoutRule> rules;
  if (ep_size > 0) rules.push_back(ExpertRule(*this));
  if (tp_size == 0) return rules;
  absl::StatusOr<std::vector<LayoutRule>> tp = ReadTpRules(tp_rules);
  if (!tp.ok()) return tp.status();
  for (LayoutRule& rule : *tp) {
    rule.part = tp_rank;
    rule.parts = tp_size;
    rules.push_back(std::move(rule));
  }
  return rules;
}

void AddPartOptions(CLI::App* command, PartOptions& options) {
  const auto add = [&](const std::string& name, uint64_t& value, int64_t least, const std::string& help) {
    return AddNumber(command, kPartGroup, name, value, least, help);
  };
  CLI::Option* ep_rank = add("--ep-rank", options.ep_rank, 0, "Which part of the experts, from 0");
  Need(ep_rank,
       add("--ep-size", options.ep_size, 1, "Into how many parts the experts are split; other tensors come whole"));
  CLI::Option* tp_rank = add("--tp-rank", options.tp_rank, 0, "Which part of what --tp-rules names, from 0");
  CLI::Option* tp_size = add("--tp-size", options.tp_size, 1, "Into how many parts that is split");
  CLI::Option* rules =
      command->add_option("--tp-rules", options.tp_rules, kTpRulesHelp)->type_name("FILE")->group(kPartGroup);
  Need(tp_rank, tp_size);
  Need(tp_size, rules);
}

void CheckPartOptions(const PartOptions& options) {
  CheckBelow("--ep-rank", options.ep_rank, "--ep-size", options.ep_size);
  CheckBelow("--tp-rank", options.tp_rank, "--tp-size", options.tp_size);
}

}  // namespace refit::cli
