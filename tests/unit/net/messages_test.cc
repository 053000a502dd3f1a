#include "common/net/messages.h"

#include <gtest/gtest.h>

#include <string>

namespace refit {
namespace {

TEST(Messages, SpecsRoundTrip) {
  for (const DType dtype : kAllDTypes) {
    for (const Shape& shape : {Shape{}, Shape{0}, Shape{3, 1, 5}}) {
      const TensorSpec spec{"model.norm.weight", dtype, shape};
      v1::TensorSpec proto;
      proto.add_shape(99);  // whatever was there before
      ToProto(spec, proto);
      const auto back = FromProto(proto);
      ASSERT_TRUE(back.ok()) << back.status();
      EXPECT_EQ(*back, spec);
    }
  }
}

TEST(Messages, BadSpecsAreRefusedByName) {
  const auto refusal = [](const std::string& name, int dtype, std::initializer_list<int64_t> shape) {
    v1::TensorSpec proto;
    proto.set_name(name);
    proto.set_dtype(static_cast<v1::DType>(dtype));
    for (const int64_t size : shape) proto.add_shape(size);
    return FromProto(proto, 32).status();
  };
  EXPECT_TRUE(refusal("ok", v1::DTYPE_BF16, {1}).ok());
  for (const absl::Status& status : {
           refusal("t.weight", 0, {1}),
           refusal("t.weight", v1::DType_MAX + 1, {1}),
           refusal("t.weight", -1, {1}),
           refusal("t.weight", v1::DTYPE_BF16, {-1}),
           refusal("t.weight", v1::DTYPE_F32, {int64_t{1} << 62, 8}),
       }) {
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(status.message().find("t.weight"), std::string::npos) << status;
  }
  EXPECT_EQ(refusal("", v1::DTYPE_BF16, {1}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(refusal(std::string(33, 'n'), v1::DTYPE_BF16, {1}).code(), absl::StatusCode::kInvalidArgument);
}

TEST(Messages, BoxesRoundTrip) {
  for (const Box& box : {Box{}, Box{{3, 0}, {1, 5}}, Box{{-1}, {INT64_MAX}}, Box{{1, 2}, {}}}) {
    v1::Box proto;
    proto.add_sizes(99);  // whatever was there before
    ToProto(box, proto);
    EXPECT_EQ(FromProto(proto), box);
  }
}

TEST(Messages, LayoutRulesRoundTrip) {
  using Scope = LayoutRule::Scope;
  for (const Scope scope : {Scope::kAny, Scope::kExperts, Scope::kOrdinary}) {
    for (const Split split : {Split::kBalanced, Split::kCeil}) {
      const LayoutRule rule{scope, "q_proj", 2, UINT64_MAX - 1, UINT64_MAX, split};
      v1::LayoutRule proto;
      ToProto(rule, proto);
      const auto back = FromProto(proto);
      ASSERT_TRUE(back.ok()) << back.status();
      EXPECT_EQ(back->scope, scope);
      EXPECT_EQ(back->pattern, "q_proj");
      EXPECT_EQ(back->dimension, 2u);
      EXPECT_EQ(back->part, UINT64_MAX - 1);
      EXPECT_EQ(back->parts, UINT64_MAX);
      EXPECT_EQ(back->split, split);
    }
  }
}

TEST(Messages, UnknownLayoutRulesAreRefused) {
  v1::LayoutRule proto;
  EXPECT_TRUE(FromProto(proto).ok());
  proto.set_scope(static_cast<v1::TensorScope>(3));
  EXPECT_EQ(FromProto(proto).status().code(), absl::StatusCode::kInvalidArgument);
  proto.set_scope(v1::TENSOR_SCOPE_ANY);
  proto.set_split(static_cast<v1::Split>(-1));
  EXPECT_EQ(FromProto(proto).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace refit
