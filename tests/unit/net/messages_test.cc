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
           refusal("t.weight", 13, {1}),
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

}  // namespace
}  // namespace refit
