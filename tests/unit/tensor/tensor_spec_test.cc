#include "refit/tensor_spec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace refit {
namespace {

using ::testing::HasSubstr;

TensorSpec Named(std::string name) { return {std::move(name), DType::kF32, {2}}; }

TEST(TensorSpecTest, SizePrintAndCompare) {
  const TensorSpec spec{"model.norm.weight", DType::kBF16, {2816}};
  EXPECT_EQ(spec.ByteSize(), 5632U);
  EXPECT_EQ(spec.ToString(), "model.norm.weight BF16 [2816]");
  EXPECT_EQ(spec, spec);
  EXPECT_NE(spec, (TensorSpec{"model.norm.weight", DType::kF16, {2816}}));
  EXPECT_NE(spec, (TensorSpec{"model.norm.weight", DType::kBF16, {2816, 1}}));
  EXPECT_NE(spec, (TensorSpec{"model.norm.bias", DType::kBF16, {2816}}));
}

TEST(TensorSpecTest, AcceptsGoodNames) {
  for (const char* name : {"a", "model.layers.0.weight", "gewicht\xC3\xA4", "\xE6\x9D\x83\xE9\x87\x8D",
                           "\xF0\x9F\x98\x80", "with space", "\xC2\xA0", "\xED\x9F\xBF", "\xF4\x8F\xBF\xBF"}) {
    EXPECT_TRUE(Validate(Named(name)).ok()) << name;
  }
  EXPECT_TRUE(Validate(Named(std::string(1024, 'x'))).ok());
}

TEST(TensorSpecTest, RefusesBadNames) {
  const struct {
    std::string name;
    const char* message;
  } cases[] = {
      {"", "empty"},
      {std::string(1025, 'x'), "1025 bytes"},
      {"a\nb", "control character at byte 1"},
      {std::string("a\0b", 3), "control character at byte 1"},
      {"\x7F", "control character"},
      {"\xC2\x80", "control character"},
      {"ab\xFF", "UTF-8 at byte 2"},
      {"\x80", "UTF-8"},
      {"\xC3", "UTF-8"},              // cut off
      {"\xC3(", "UTF-8"},             // no continuation
      {"\xC0\xAF", "UTF-8"},          // overlong
      {"\xE0\x80\xAF", "UTF-8"},      // overlong
      {"\xF0\x80\x80\xAF", "UTF-8"},  // overlong
      {"\xED\xA0\x80", "UTF-8"},      // surrogate
      {"\xF4\x90\x80\x80", "UTF-8"},  // beyond U+10FFFF
      {"\xF5\x80\x80\x80", "UTF-8"},
  };
  for (const auto& c : cases) {
    const absl::Status status = Validate(Named(c.name));
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.message));
  }
}

TEST(TensorSpecTest, LimitOnNamesCanBeSet) {
  EXPECT_TRUE(Validate(Named("four"), 4).ok());
  EXPECT_FALSE(Validate(Named("fives"), 4).ok());
}

TEST(TensorSpecTest, NamesTheTensorWhoseShapeIsBad) {
  const absl::Status status = Validate({"w", DType::kF32, {-1}});
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("\"w\""));
}

TEST(PrintableTest, EscapesAndCuts) {
  EXPECT_EQ(Printable(""), "");
  EXPECT_EQ(Printable("model.weight"), "model.weight");
  EXPECT_EQ(Printable("a\x1B[31m\n\xFF"), "a\\x1b[31m\\x0a\\xff");
  EXPECT_EQ(Printable("\xC2\x85"), "\\xc2\\x85");
  EXPECT_EQ(Printable("\xC3\xA4"), "\xC3\xA4");
  EXPECT_EQ(Printable(std::string(200, 'x')), std::string(200, 'x'));
  EXPECT_EQ(Printable(std::string(201, 'x')), std::string(197, 'x') + "...");
  // Never in the middle of a character or an escape.
  std::string umlauts;
  for (int i = 0; i < 150; ++i) umlauts += "\xC3\xA4";
  EXPECT_EQ(Printable(umlauts), umlauts.substr(0, 196) + "...");
  EXPECT_LE(Printable(std::string(1 << 20, '\n')).size(), 200U);
}

}  // namespace
}  // namespace refit
