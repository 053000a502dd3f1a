#include "common/adapters/layout_rules.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace refit {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using Scope = LayoutRule::Scope;

const TensorSpec kExperts{"layers.0.experts.down_proj", DType::kBF16, {8, 6, 4}};
const TensorSpec kOrdinary{"layers.0.q_proj.weight", DType::kBF16, {12, 10}};
const TensorSpec kNorm{"norm.weight", DType::kBF16, {12}};
const TensorSpec kScalar{"scale", DType::kF32, {}};

LayoutRules Compile(const std::vector<LayoutRule>& rules) {
  auto compiled = LayoutRules::Compile(rules);
  EXPECT_TRUE(compiled.ok()) << compiled.status();
  return *std::move(compiled);
}

// For tensors of the names above.
Box BoxOf(LayoutRules& rules, const TensorSpec& tensor) {
  const auto box = rules.BoxOf(tensor, tensor == kExperts);
  EXPECT_TRUE(box.ok()) << box.status();
  return box.ok() ? *box : Box{};
}

TEST(LayoutRules, NoneLeaveTensorsWhole) {
  LayoutRules rules = Compile({});
  for (const TensorSpec& tensor : {kExperts, kOrdinary, kNorm, kScalar}) {
    EXPECT_EQ(BoxOf(rules, tensor), WholeBox(tensor.shape));
  }
  EXPECT_TRUE(rules.CheckAllApplied().ok());
}

TEST(LayoutRules, ScopesAreKept) {
  LayoutRules experts = Compile({{Scope::kExperts, "", 0, 1, 4}});
  EXPECT_EQ(BoxOf(experts, kExperts), (Box{{2, 0, 0}, {2, 6, 4}}));
  EXPECT_EQ(BoxOf(experts, kOrdinary), WholeBox(kOrdinary.shape));
  LayoutRules ordinary = Compile({{Scope::kOrdinary, "", 0, 1, 4}});
  EXPECT_EQ(BoxOf(ordinary, kExperts), WholeBox(kExperts.shape));
  EXPECT_EQ(BoxOf(ordinary, kOrdinary), (Box{{3, 0}, {3, 10}}));
  LayoutRules any = Compile({{Scope::kAny, "", 0, 1, 4}});
  EXPECT_EQ(BoxOf(any, kExperts), (Box{{2, 0, 0}, {2, 6, 4}}));
  EXPECT_EQ(BoxOf(any, kOrdinary), (Box{{3, 0}, {3, 10}}));
}

TEST(LayoutRules, PatternsAreFoundAnywhere) {
  LayoutRules rules = Compile({{Scope::kAny, R"(q_proj\.)", 1, 0, 2}});
  EXPECT_EQ(BoxOf(rules, kOrdinary), (Box{{0, 0}, {12, 5}}));
  EXPECT_EQ(BoxOf(rules, kNorm), WholeBox(kNorm.shape));
  LayoutRules anchored = Compile({{Scope::kAny, "^q_proj", 0, 0, 2}});
  EXPECT_EQ(BoxOf(anchored, kOrdinary), WholeBox(kOrdinary.shape));
}

TEST(LayoutRules, TensorsWithoutTheDimensionStayWholeUnlessNamed) {
  LayoutRules every = Compile({{Scope::kAny, "", 1, 1, 2}});
  EXPECT_EQ(BoxOf(every, kNorm), WholeBox(kNorm.shape));
  EXPECT_EQ(BoxOf(every, kScalar), Box{});
  EXPECT_EQ(BoxOf(every, kOrdinary), (Box{{0, 5}, {12, 5}}));

  LayoutRules named = Compile({{Scope::kAny, "norm", 1, 1, 2}});
  const absl::Status status = named.BoxOf(kNorm, false).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("norm.weight BF16 [12]"), HasSubstr("names with 'norm', dimension 1, part 1 of 2")));
  LayoutRules far = Compile({{Scope::kAny, "norm", UINT32_MAX, 1, 2}});
  EXPECT_EQ(far.BoxOf(kNorm, false).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(LayoutRules, EachCutsWhatTheOnesBeforeItLeft) {
  LayoutRules one = Compile({{Scope::kAny, "", 0, 1, 2}, {Scope::kAny, "", 0, 1, 4, Split::kCeil}});
  EXPECT_EQ(BoxOf(one, kNorm), (Box{{8}, {2}}));
  LayoutRules other = Compile({{Scope::kAny, "", 0, 1, 4, Split::kCeil}, {Scope::kAny, "", 0, 1, 2}});
  EXPECT_EQ(BoxOf(other, kNorm), (Box{{5}, {1}}));
  LayoutRules both = Compile({{Scope::kAny, "", 0, 0, 3}, {Scope::kAny, "", 1, 1, 2}});
  EXPECT_EQ(BoxOf(both, kOrdinary), (Box{{0, 5}, {4, 5}}));
}

TEST(LayoutRules, OneExclusiveRuleAtMostCutsATensor) {
  LayoutRules rules = Compile({{Scope::kAny, "q_proj", 0, 1, 2, Split::kBalanced, true},
                               {Scope::kAny, "norm", 0, 1, 2, Split::kBalanced, true},
                               {Scope::kOrdinary, "proj\\.weight$", 1, 1, 2},
                               {Scope::kAny, "^norm\\.", 0, 1, 2, Split::kBalanced, true}});
  EXPECT_EQ(BoxOf(rules, kOrdinary), (Box{{6, 5}, {6, 5}}));
  const absl::Status status = rules.BoxOf(kNorm, false).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("norm.weight"), HasSubstr("names with 'norm'"), HasSubstr("names with '^norm\\.'")));
}

TEST(LayoutRules, SplitsDiffer) {
  LayoutRules balanced = Compile({{Scope::kAny, "", 0, 4, 5, Split::kBalanced}});
  EXPECT_EQ(BoxOf(balanced, kNorm), (Box{{10}, {2}}));
  LayoutRules ceil = Compile({{Scope::kAny, "", 0, 4, 5, Split::kCeil}});
  EXPECT_EQ(BoxOf(ceil, kNorm), (Box{{12}, {0}}));
}

TEST(LayoutRules, BadRulesAreRefused) {
  const auto refusal = [](const LayoutRule& rule) { return LayoutRules::Compile({rule}).status(); };
  for (const auto& [part, parts] : {std::pair<uint64_t, uint64_t>(0, 0), {2, 2}, {UINT64_MAX, 2}, {5, 0}}) {
    const absl::Status status = refusal({Scope::kExperts, "", 0, part, parts});
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("experts, dimension 0, part " + std::to_string(part)));
  }
  EXPECT_EQ(refusal({Scope::kAny, "(", 0, 0, 1}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(refusal({Scope::kAny, std::string(1 << 20, 'x'), 0, 0, 1}).ok());
  EXPECT_TRUE(refusal({Scope::kAny, "x", 0, UINT64_MAX - 1, UINT64_MAX}).ok());
}

TEST(LayoutRules, ARuleThatAppliesToNothingIsNamed) {
  LayoutRules rules = Compile({{Scope::kAny, "", 0, 0, 2}, {Scope::kOrdinary, "x_proj", 1, 1, 2}});
  BoxOf(rules, kOrdinary);
  const absl::Status status = rules.CheckAllApplied();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("ordinary tensors, names with 'x_proj', dimension 1, part 1 of 2"));
  EXPECT_TRUE(rules.BoxOf({"x_proj", DType::kF32, {2, 2}}, true).ok());  // experts are no ordinary tensors
  EXPECT_FALSE(rules.CheckAllApplied().ok());
  EXPECT_TRUE(rules.BoxOf({"x_proj", DType::kF32, {2, 2}}, false).ok());
  EXPECT_TRUE(rules.CheckAllApplied().ok());
}

TEST(LayoutRules, NothingOfWhatATensorLacksWasApplied) {
  LayoutRules rules = Compile({{Scope::kAny, "", 1, 0, 2}});
  BoxOf(rules, kNorm);
  EXPECT_EQ(rules.CheckAllApplied().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace refit
