// The way back. What the reference's from_hf made of the same HF tensors; and every golden case of the way there, back.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/adapters/offline_from_hf.h"
#include "common/adapters/offline_to_hf.h"
#include "common/safetensors/safetensors.h"
#include "tests/golden/families/family_case.h"
#include "tests/support/temporary_folder.h"

namespace refit {
namespace {

using File = std::shared_ptr<const SafetensorsFile>;
using Index = std::map<std::string, size_t>;

Index IndexOf(const File& file) {
  Index index;
  for (size_t i = 0; i < file->tensors().size(); ++i) index[file->tensors()[i].name] = i;
  return index;
}

bool SameBytes(const File& a, size_t i, const File& b, size_t j) {
  return std::equal(a->data(i).begin(), a->data(i).end(), b->data(j).begin(), b->data(j).end());
}

// Names, dtypes, shapes and bytes. Orders may differ.
void ExpectSameTensors(const File& made, const File& expected) {
  const Index index = IndexOf(made);
  for (size_t i = 0; i < expected->tensors().size(); ++i) {
    const TensorSpec& spec = expected->tensors()[i];
    const auto found = index.find(spec.name);
    ASSERT_NE(found, index.end()) << spec.name << " is missing";
    EXPECT_EQ(made->tensors()[found->second], spec);
    EXPECT_TRUE(SameBytes(made, found->second, expected, i)) << spec.name;
  }
  EXPECT_EQ(made->tensors().size(), expected->tensors().size());
}

OfflineConvertOptions OptionsOf(const FamilyCase& golden) {
  OfflineConvertOptions options;
  options.adapter = golden.adapter;
  options.adapter_options = golden.options;
  return options;
}

class FromHf : public ::testing::TestWithParam<FamilyCase> {};

TEST_P(FromHf, EqualsTheReference) {
  const TemporaryFolder folder;
  OfflineConvertOptions options = OptionsOf(GetParam());
  options.dtype = GetParam().dtype;
  const std::string out = folder.Path("native.safetensors");
  const absl::StatusOr<ConvertedFile> made = ConvertFileFromHf(options, GetParam().input, out);
  ASSERT_TRUE(made.ok()) << made.status();
  ExpectSameTensors(SafetensorsFile::Open(out).value(), SafetensorsFile::Open(GetParam().output).value());
}

INSTANTIATE_TEST_SUITE_P(Families, FromHf, ::testing::ValuesIn(FromHfCases()),
                         [](const auto& test) { return TestName(test.param); });

// A native name that HF names do not keep: they tell of the holder of F32 parameters, of one prefix, of one bias.
bool IsLost(const FamilyCase& golden, absl::string_view name) {
  const auto prefix = golden.options.find("uses_model_prefix");
  return absl::EndsWith(name, "A_log") || absl::EndsWith(name, "dt_bias") || absl::EndsWith(name, ".D") ||
         absl::EndsWith(name, ".moe.gate.bias") || (prefix != golden.options.end() && prefix->second == "false");
}

// Of the way there.
std::vector<FamilyCase> Invertible(absl::string_view kinds) {
  std::vector<FamilyCase> cases;
  for (FamilyCase& golden : FamilyCases()) {
    const std::string kind = golden.id.substr(golden.id.find('/') + 1);
    const bool odd = absl::StartsWith(kind, "odd_") || absl::StartsWith(kind, "silent_");
    if (golden.output.empty() || !golden.exclude_key_regex.empty() || odd != (kinds == "odd")) continue;
    cases.push_back(std::move(golden));
  }
  return cases;
}

class ThereAndBack : public ::testing::TestWithParam<FamilyCase> {
 protected:
  absl::StatusOr<ConvertedFile> Back() const {
    return ConvertFileFromHf(OptionsOf(GetParam()), GetParam().output, native_);
  }

  void ExpectTheSameFileAgain() const {
    const absl::StatusOr<ConvertedFile> there = ConvertFileToHf(OptionsOf(GetParam()), native_, hf_);
    ASSERT_TRUE(there.ok()) << there.status();
    ExpectSameTensors(SafetensorsFile::Open(hf_).value(), SafetensorsFile::Open(GetParam().output).value());
  }

  const TemporaryFolder folder_;
  const std::string native_ = folder_.Path("native.safetensors");
  const std::string hf_ = folder_.Path("hf.safetensors");
};

TEST_P(ThereAndBack, GivesTheSameTensors) {
  const absl::StatusOr<ConvertedFile> back = Back();
  ASSERT_TRUE(back.ok()) << back.status();
  const File made = SafetensorsFile::Open(native_).value();
  const File input = SafetensorsFile::Open(GetParam().input).value();
  const Index index = IndexOf(made);
  for (size_t i = 0; i < input->tensors().size(); ++i) {
    TensorSpec spec = input->tensors()[i];
    if (GetParam().outputs[i].empty()) continue;  // it is left out, or has no elements
    const auto found = index.find(spec.name);
    if (found == index.end() && IsLost(GetParam(), spec.name)) continue;
    ASSERT_NE(found, index.end()) << spec.name << " is missing";
    const bool is_forced = GetParam().outputs[i].front().dtype != spec.dtype;
    if (is_forced) spec.dtype = DType::kF32;
    EXPECT_EQ(made->tensors()[found->second], spec);
    EXPECT_TRUE(is_forced || SameBytes(made, found->second, input, i)) << spec.name;
  }
  ExpectTheSameFileAgain();
}

INSTANTIATE_TEST_SUITE_P(Families, ThereAndBack, ::testing::ValuesIn(Invertible("whole")),
                         [](const auto& test) { return TestName(test.param); });

// Names that no rule knows, or nearly: whatever comes back makes the same file again, or nothing comes back.
using OddThereAndBack = ThereAndBack;

TEST_P(OddThereAndBack, IsRightOrRefused) {
  const absl::StatusOr<ConvertedFile> back = Back();
  if (back.ok()) return ExpectTheSameFileAgain();
  EXPECT_EQ(back.status().code(), absl::StatusCode::kInvalidArgument) << back.status();
  EXPECT_FALSE(std::filesystem::exists(native_));
}

INSTANTIATE_TEST_SUITE_P(Families, OddThereAndBack, ::testing::ValuesIn(Invertible("odd")),
                         [](const auto& test) { return TestName(test.param); });

}  // namespace
}  // namespace refit
