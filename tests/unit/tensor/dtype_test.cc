#include "refit/dtype.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace refit {
namespace {

using ::testing::HasSubstr;

TEST(DTypeTest, NamesSizesAndCastability) {
  const struct {
    DType dtype;
    const char* name;
    size_t size;
    bool castable;
  } cases[] = {
      {DType::kF64, "F64", 8, true},
      {DType::kF32, "F32", 4, true},
      {DType::kF16, "F16", 2, true},
      {DType::kBF16, "BF16", 2, true},
      {DType::kF8E4M3, "F8_E4M3", 1, false},
      {DType::kF8E5M2, "F8_E5M2", 1, false},
      {DType::kI64, "I64", 8, false},
      {DType::kI32, "I32", 4, false},
      {DType::kI16, "I16", 2, false},
      {DType::kI8, "I8", 1, false},
      {DType::kU8, "U8", 1, false},
      {DType::kBool, "BOOL", 1, false},
      {DType::kU16, "U16", 2, false},
      {DType::kU32, "U32", 4, false},
      {DType::kU64, "U64", 8, false},
      {DType::kF8E8M0, "F8_E8M0", 1, false},
      {DType::kF8E4M3Fnuz, "F8_E4M3FNUZ", 1, false},
      {DType::kF8E5M2Fnuz, "F8_E5M2FNUZ", 1, false},
      {DType::kC64, "C64", 8, false},
      {DType::kF4Packed, "F4_PACKED", 1, false},
      {DType::kF6E2M3Packed, "F6_E2M3_PACKED", 1, false},
      {DType::kF6E3M2Packed, "F6_E3M2_PACKED", 1, false},
  };
  int wire = 0;
  for (const auto& c : cases) {
    SCOPED_TRACE(c.name);
    EXPECT_EQ(Name(c.dtype), c.name);
    EXPECT_EQ(ElementSize(c.dtype), c.size);
    EXPECT_EQ(IsCastable(c.dtype), c.castable);
    EXPECT_EQ(ParseDType(c.name).value(), c.dtype);
    EXPECT_EQ(DTypeFromWire(++wire).value(), c.dtype);
  }
  EXPECT_EQ(std::size(kAllDTypes), std::size(cases));
}

TEST(DTypeTest, TellsNumbersFromWhatHoldsSeveral) {
  for (DType dtype : kAllDTypes) {
    const std::string name(Name(dtype));
    const bool is_packed = name.find("PACKED") != std::string::npos;
    EXPECT_EQ(PackedBits(dtype), is_packed ? name[1] - '0' : 0) << name;
    EXPECT_EQ(IsNumber(dtype), !is_packed && dtype != DType::kC64) << name;
  }
}

TEST(DTypeTest, ParsesAnyCase) {
  EXPECT_EQ(ParseDType("bf16").value(), DType::kBF16);
  EXPECT_EQ(ParseDType("f8_e4m3").value(), DType::kF8E4M3);
}

TEST(DTypeTest, RefusesUnknownNamesAndListsTheKnown) {
  for (const char* name : {"", "F", "F128", "BF16 ", "float32", "\x01"}) {
    const absl::Status status = ParseDType(name).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_THAT(std::string(status.message()), HasSubstr("F64, F32, F16, BF16, F8_E4M3, F8_E5M2, I64"));
  }
}

TEST(DTypeTest, RefusesUnknownWireValues) {
  for (int value : {-1, 0, 23, 1 << 20}) {
    const absl::Status status = DTypeFromWire(value).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(std::to_string(value)));
  }
}

TEST(DTypeTest, AValueThatIsNoEnumeratorHasNoSize) {
  EXPECT_EQ(ElementSize(static_cast<DType>(200)), 0U);
  EXPECT_EQ(Name(static_cast<DType>(200)), "?");
}

}  // namespace
}  // namespace refit
