#include "refit/mesh.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <string>

namespace refit {
namespace {

using ::testing::HasSubstr;
using Scope = LayoutRule::Scope;
using Shards = std::vector<TensorPart>;

constexpr size_t kGateUp = 0;
constexpr size_t kDown = 1;
constexpr size_t kProj = 2;
constexpr size_t kNorm = 3;
constexpr size_t kScalar = 4;

// 13 experts; 10 rows.
const std::vector<TensorSpec> kNative = {{"model.layers.0.moe.experts.gate_and_up_projs", DType::kBF16, {13, 6, 8}},
                                         {"model.layers.0.moe.experts.down_projs", DType::kBF16, {13, 4, 6}},
                                         {"model.layers.0.q_proj.weight", DType::kBF16, {10, 6}},
                                         {"model.norm.weight", DType::kF32, {3}},
                                         {"model.scale", DType::kF32, {}}};

absl::StatusOr<Shards> ShardsOfRank(const Mesh& mesh, uint32_t rank, const std::vector<TensorSpec>& native = kNative) {
  const auto rules = RulesOfRank(mesh, rank);
  if (!rules.ok()) return rules.status();
  return ShardsOf(*rules, "gemma4_moe", native);
}

std::vector<Shards> ShardsOfAll(const Mesh& mesh) {
  std::vector<Shards> all;
  for (uint32_t rank = 0; rank < mesh.world; ++rank) {
    auto shards = ShardsOfRank(mesh, rank);
    EXPECT_TRUE(shards.ok()) << shards.status();
    all.push_back(*std::move(shards));
  }
  return all;
}

// The boxes that hold anything, each once.
std::set<Box> UniqueBoxes(const std::vector<Shards>& all, size_t tensor) {
  std::set<Box> boxes;
  for (const Shards& shards : all) {
    if (shards[tensor].ByteSize() > 0) boxes.insert(shards[tensor].box);
  }
  return boxes;
}

void ExpectTiles(const Mesh& mesh) {
  const std::vector<Shards> all = ShardsOfAll(mesh);
  for (size_t i = 0; i < kNative.size(); ++i) {
    const std::set<Box> unique = UniqueBoxes(all, i);
    const std::vector<Box> boxes(unique.begin(), unique.end());
    EXPECT_FALSE(CheckTiling(kNative[i].shape, boxes).has_value()) << kNative[i].ToString();
  }
}

std::vector<std::string> Names(const std::vector<LayoutRule>& rules) {
  std::vector<std::string> names;
  names.reserve(rules.size());
  for (const LayoutRule& rule : rules) names.push_back(rule.ToString());
  return names;
}

TEST(Mesh, OfOneRankHoldsEverything) {
  const auto rules = RulesOfRank({}, 0);
  ASSERT_TRUE(rules.ok()) << rules.status();
  EXPECT_TRUE(rules->empty());
  const auto shards = ShardsOf(*rules, "", kNative);
  ASSERT_TRUE(shards.ok()) << shards.status();
  ASSERT_EQ(shards->size(), kNative.size());
  for (size_t i = 0; i < kNative.size(); ++i) EXPECT_EQ((*shards)[i], TensorPart::Whole(kNative[i]));
}

TEST(Mesh, RulesComeInOrder) {
  Mesh mesh{.world = 24, .ep_size = 3, .ep_shard_size = 2, .fsdp_size = 12, .tp_size = 2};
  mesh.tp_rules = {{Scope::kAny, "q_proj", 0, 77, 99}, {Scope::kExperts, "", 2, 0, 1, Split::kCeil}};
  // 17 is tp 1 of outer rank 8: ep 2, ep_shard 2 % 2, fsdp 8.
  const auto rules = RulesOfRank(mesh, 17);
  ASSERT_TRUE(rules.ok()) << rules.status();
  EXPECT_THAT(Names(*rules), ::testing::ElementsAre(
                                 "names with 'q_proj', dimension 0, part 1 of 2", "experts, dimension 2, part 1 of 2",
                                 "experts, dimension 0, part 2 of 3", "experts, dimension 1, part 0 of 2",
                                 "ordinary tensors, dimension 0, part 8 of 12"));
  EXPECT_EQ((*rules)[0].split, Split::kBalanced);
  EXPECT_EQ((*rules)[1].split, Split::kCeil);
  EXPECT_EQ((*rules)[2].split, Split::kBalanced);
  EXPECT_EQ((*rules)[3].split, Split::kCeil);
  EXPECT_EQ((*rules)[4].split, Split::kCeil);
}

TEST(Mesh, AxesOfOneGiveNoRule) {
  Mesh mesh{.world = 8, .ep_size = 4};
  mesh.tp_rules = {{Scope::kAny, "no such tensor", 0}};
  const auto rules = RulesOfRank(mesh, 7);
  ASSERT_TRUE(rules.ok()) << rules.status();
  EXPECT_THAT(Names(*rules), ::testing::ElementsAre("experts, dimension 0, part 3 of 4"));
}

// As get_expert_range_for_rank of the reference has it: 13 experts are 4 + 3 + 3 + 3.
TEST(Mesh, UnevenExperts) {
  const std::vector<Shards> all = ShardsOfAll({.world = 4, .ep_size = 4});
  EXPECT_EQ(all[0][kDown].box, (Box{{0, 0, 0}, {4, 4, 6}}));
  EXPECT_EQ(all[1][kDown].box, (Box{{4, 0, 0}, {3, 4, 6}}));
  EXPECT_EQ(all[2][kDown].box, (Box{{7, 0, 0}, {3, 4, 6}}));
  EXPECT_EQ(all[3][kDown].box, (Box{{10, 0, 0}, {3, 4, 6}}));
  EXPECT_EQ(all[3][kGateUp].box, (Box{{10, 0, 0}, {3, 6, 8}}));
  EXPECT_TRUE(all[3][kProj].is_whole());
}

TEST(Mesh, EpIsInsideOfEpShard) {
  const std::vector<Shards> all = ShardsOfAll({.world = 12, .ep_size = 2, .ep_shard_size = 3});
  EXPECT_EQ(all[1][kGateUp].box, (Box{{7, 0, 0}, {6, 2, 8}}));
  EXPECT_EQ(all[2][kGateUp].box, (Box{{0, 2, 0}, {7, 2, 8}}));
  EXPECT_EQ(all[5][kGateUp].box, (Box{{7, 4, 0}, {6, 2, 8}}));
  // 4 rows in three: 2, 2, none.
  EXPECT_EQ(all[5][kDown].box, (Box{{7, 4, 0}, {6, 0, 6}}));
  EXPECT_EQ(all[6], all[0]);  // replicas
  EXPECT_EQ(all[11], all[5]);
}

TEST(Mesh, FsdpMayLeaveTheLastRanksLessOrNothing) {
  const std::vector<Shards> all = ShardsOfAll({.world = 4, .fsdp_size = 4});
  EXPECT_EQ(all[0][kProj].box, (Box{{0, 0}, {3, 6}}));
  EXPECT_EQ(all[3][kProj].box, (Box{{9, 0}, {1, 6}}));
  EXPECT_EQ(all[2][kNorm].box, (Box{{2}, {1}}));
  EXPECT_EQ(all[3][kNorm].box, (Box{{3}, {0}}));
  EXPECT_EQ(all[3][kNorm].ByteSize(), 0u);
  EXPECT_TRUE(all[3][kScalar].is_whole());
  EXPECT_TRUE(all[3][kGateUp].is_whole());
}

TEST(Mesh, TensorParallelIsInnermostAndCutsFirst) {
  Mesh mesh{.world = 4, .fsdp_size = 2, .tp_size = 2};
  mesh.tp_rules = {{Scope::kAny, "q_proj", 0}, {Scope::kExperts, "down", 2}};
  const std::vector<Shards> all = ShardsOfAll(mesh);
  // 10 rows: 5 a tp rank, then 3 and 2.
  EXPECT_EQ(all[0][kProj].box, (Box{{0, 0}, {3, 6}}));
  EXPECT_EQ(all[1][kProj].box, (Box{{5, 0}, {3, 6}}));
  EXPECT_EQ(all[2][kProj].box, (Box{{3, 0}, {2, 6}}));
  EXPECT_EQ(all[3][kProj].box, (Box{{8, 0}, {2, 6}}));
  EXPECT_EQ(all[1][kDown].box, (Box{{0, 0, 3}, {13, 4, 3}}));
  EXPECT_EQ(all[3][kNorm].box, (Box{{2}, {1}}));
  ExpectTiles(mesh);
}

TEST(Mesh, RanksTileEveryTensor) {
  for (const uint32_t ep : {1, 2, 3, 4, 16}) {
    for (const uint32_t ep_shard : {1, 2, 5}) {
      for (const uint32_t replicas : {1, 2}) {
        const uint32_t world = ep * ep_shard * replicas;
        ExpectTiles({.world = world, .ep_size = ep, .ep_shard_size = ep_shard, .fsdp_size = world});
        Mesh mesh{.world = world * 2, .ep_size = ep, .ep_shard_size = ep_shard, .fsdp_size = ep, .tp_size = 2};
        mesh.tp_rules = {{Scope::kExperts, "", 2}, {Scope::kOrdinary, "weight", 0}};
        ExpectTiles(mesh);
      }
    }
  }
}

TEST(Mesh, EveryBoxIsHeldByAsManyReplicas) {
  const std::vector<Shards> all = ShardsOfAll({.world = 16, .ep_size = 4, .ep_shard_size = 2, .fsdp_size = 4});
  EXPECT_EQ(UniqueBoxes(all, kGateUp).size(), 8u);
  EXPECT_EQ(UniqueBoxes(all, kProj).size(), 4u);
  EXPECT_EQ(UniqueBoxes(all, kScalar).size(), 1u);
}

TEST(Mesh, WhatDoesNotFitIsSaid) {
  const auto expect = [](const Mesh& mesh, uint32_t rank, const std::string& text) {
    const absl::Status status = RulesOfRank(mesh, rank).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(status.message()), HasSubstr(text));
  };
  expect({.world = 0}, 0, "world is 0");
  expect({.ep_size = 0}, 0, "ep_size is 0");
  expect({.ep_shard_size = 0}, 0, "ep_shard_size is 0");
  expect({.fsdp_size = 0}, 0, "fsdp_size is 0");
  expect({.tp_size = 0}, 0, "tp_size is 0");
  expect({.world = 4}, 4, "rank 4 is not below world 4");
  expect({.world = 4}, UINT32_MAX, "rank 4294967295 is not below world 4");
  expect({.world = 12, .ep_size = 8}, 0, "tp_size 1 * ep_size 8 * ep_shard_size 1 does not divide world 12");
  expect({.world = 12, .ep_size = 4, .ep_shard_size = 2}, 0, "ep_shard_size 2 does not divide world 12");
  expect({.world = 12, .ep_size = 4, .tp_size = 2}, 0, "tp_size 2 * ep_size 4 * ep_shard_size 1 does not divide");
  expect({.world = 12, .fsdp_size = 5}, 0, "tp_size 1 * fsdp_size 5 does not divide world 12");
  expect({.world = 12, .fsdp_size = 12, .tp_size = 2}, 0, "tp_size 2 * fsdp_size 12 does not divide world 12");
  // Products that are nothing modulo 2^64 or 2^32.
  const uint32_t large = uint32_t{1} << 31;
  expect({.world = large, .ep_size = large, .ep_shard_size = large, .tp_size = large}, 0, "does not divide");
  expect({.world = large, .fsdp_size = large, .tp_size = large}, 0, "does not divide");
}

TEST(Mesh, ShardsNeedAnAdapterThatTakesThem) {
  EXPECT_EQ(ShardsOf({}, "no such adapter", kNative).status().code(), absl::StatusCode::kNotFound);
  const absl::Status flat = ShardsOfRank({}, 0, {{"layers.0.moe.experts.down_projs", DType::kBF16, {5}}}).status();
  EXPECT_EQ(flat.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(flat.message()), HasSubstr("layers.0.moe.experts.down_projs"));
  for (const Shape& shape : {Shape{-4}, Shape{INT64_MAX, 2}}) {
    const absl::Status bad =
        ShardsOfRank({.world = 2, .fsdp_size = 2}, 0, {{"x.weight", DType::kBF16, shape}}).status();
    EXPECT_EQ(bad.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(bad.message()), HasSubstr("x.weight"));
  }
}

TEST(Mesh, RulesThatApplyToNothingAreErrors) {
  const std::vector<TensorSpec> dense = {kNative[kProj], kNative[kNorm]};
  const absl::Status status = ShardsOfRank({.world = 2, .ep_size = 2}, 1, dense).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("experts, dimension 0, part 1 of 2) applies to no tensor"));
  Mesh mesh{.world = 2, .tp_size = 2};
  mesh.tp_rules = {{Scope::kAny, "k_proj", 0}};
  EXPECT_EQ(ShardsOfRank(mesh, 0).status().code(), absl::StatusCode::kNotFound);
  // "identity" knows no experts.
  const auto rules = RulesOfRank({.world = 2, .ep_size = 2}, 0);
  ASSERT_TRUE(rules.ok()) << rules.status();
  EXPECT_EQ(ShardsOf(*rules, "identity", kNative).status().code(), absl::StatusCode::kNotFound);
}

TEST(Mesh, BadRulesAreErrors) {
  EXPECT_EQ(ShardsOf({{Scope::kAny, "", 0, 2, 2}}, "", kNative).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ShardsOf({{Scope::kAny, "(", 0, 0, 2}}, "", kNative).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ShardsOf({{Scope::kAny, "norm", 1, 0, 2}}, "", kNative).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace refit
