// Outputs with zeros behind.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/adapters/adapter_registry.h"
#include "common/adapters/family_adapter.h"
#include "common/adapters/family_reader.h"
#include "common/adapters/from_hf_plan.h"
#include "common/adapters/native_range_writer.h"
#include "common/adapters/offline_to_hf.h"
#include "common/safetensors/safetensors.h"
#include "tests/support/gather.h"
#include "tests/support/temporary_folder.h"

namespace refit {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::HasSubstr;
using Bytes = std::vector<std::byte>;

absl::StatusOr<std::shared_ptr<const Family>> Read(const std::string& rule, const std::string& name = "padded") {
  return ReadFamily(absl::StrCat("name = '", name, "'\n[[rule]]\nsuffix = '.A_log'\nto = '.A_log'\n", rule),
                    "padded.toml", [](absl::string_view) { return std::nullopt; });
}

std::string Pad(size_t dimension, int multiple) {
  return absl::StrCat("pad = { dim = ", dimension, ", multiple = ", multiple, " }\n");
}

absl::StatusOr<std::vector<PlannedOutput>> Plan(const std::string& rule, const TensorSpec& native) {
  return MakeAdapter(Read(rule).value(), {}).value()->PlanTensor(native, {});
}

TEST(Padding, ADimensionGrowsToAMultiple) {
  const PlannedOutput output = Plan(Pad(0, 128), {"m.A_log", DType::kF32, {100}}).value().front();
  EXPECT_EQ(output.hf, (TensorSpec{"m.A_log", DType::kF32, {128}}));
  EXPECT_EQ(output.padded_dimension, 0u);
  const PlannedOutput whole = Plan(Pad(0, 128), {"m.A_log", DType::kF32, {256}}).value().front();
  EXPECT_EQ(whole.hf.shape, Shape({256}));
  EXPECT_FALSE(whole.padded_dimension.has_value());
  EXPECT_EQ(Plan(Pad(0, 128), {"m.A_log", DType::kF32, {0, 3}}).value().front().hf.shape, Shape({0, 3}));
}

TEST(Padding, WhatCannotBePaddedIsNamed) {
  EXPECT_THAT(std::string(Plan(Pad(1, 4), {"m.A_log", DType::kF32, {3}}).status().message()),
              AllOf(HasSubstr("m.A_log"), HasSubstr("no dimension 1")));
  const auto message = [](const std::string& rule) { return std::string(Read(rule).status().message()); };
  EXPECT_THAT(message(Pad(0, 0)), HasSubstr("'multiple' is between"));
  EXPECT_THAT(message("pad = { dim = 0 }\n"), HasSubstr("'multiple' is between"));
  EXPECT_THAT(message("transform = 'transpose'\n" + Pad(0, 4)), HasSubstr("only what passes"));
  EXPECT_THAT(message("shape = ['d0']\n" + Pad(0, 4)), HasSubstr("only what passes"));
  EXPECT_THAT(message("experts = true\n" + Pad(0, 4)), HasSubstr("counts the experts"));
  EXPECT_THAT(message("pad = { dim = 0, multiple = 4, with = 1 }\n"), HasSubstr("with"));
}

// The elements of `native`, 1, 2, 3, ..., and where they are in the output.
struct Expected {
  explicit Expected(const TensorSpec& native, const PlannedOutput& output)
      : values(ElementCount(WholeBox(native.shape))), hf(ElementCount(WholeBox(output.hf.shape))) {
    for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i + 1);
    int64_t next = 0;
    BoxRuns(output.hf.shape, WholeBox(native.shape))
        .ForEach(0, ElementCount(WholeBox(native.shape)), [&](int64_t place, int64_t count) {
          for (int64_t i = 0; i < count; ++i) {
            hf[static_cast<size_t>(place + i)] = values[static_cast<size_t>(next++)];
          }
        });
  }
  Bytes native_bytes() const {
    Bytes bytes(values.size() * sizeof(float));
    std::memcpy(bytes.data(), values.data(), bytes.size());
    return bytes;
  }
  std::vector<float> values;
  std::vector<float> hf;
};

// Two shards along each dimension, in pieces of any length: each element of the output is written once.
TEST(Padding, ShardsAndPiecesWriteEachElementOnce) {
  std::mt19937 random(3);
  for (const Shape& shape : {Shape{5}, Shape{7, 3}, Shape{3, 7}, Shape{2, 3, 5}}) {
    for (size_t d = 0; d < shape.size(); ++d) {
      for (size_t cut = 0; cut < shape.size(); ++cut) {
        const TensorSpec native = {"m.A_log", DType::kF32, shape};
        const PlannedOutput output = Plan(Pad(d, 4), native).value().front();
        const Expected expected(native, output);
        Bytes hf(output.hf.ByteSize(), std::byte{0xEE});
        std::vector<int> written(expected.hf.size());
        for (uint64_t part = 0; part < 2; ++part) {
          const TensorPart shard{native, Cut(WholeBox(shape), cut, Split::kBalanced, part, 2)};
          const Bytes bytes = Gather(shard, expected.native_bytes());
          for (size_t at = 0; at < bytes.size();) {
            const size_t piece = std::min(bytes.size() - at, (1 + random() % 9) * sizeof(float));
            WriteNativeRange(shard, output, at, absl::MakeConstSpan(bytes).subspan(at, piece), hf.data(),
                             [&](const StridedRuns& runs) {
                               for (int64_t i = 0; i < runs.count; ++i) {
                                 for (int64_t k = 0; k < runs.length; ++k) {
                                   ++written[static_cast<size_t>(runs.first + i * runs.stride + k)];
                                 }
                               }
                             });
            at += piece;
          }
        }
        EXPECT_THAT(written, Each(1)) << ToString(shape) << " " << d << " " << cut;
        EXPECT_EQ(std::memcmp(hf.data(), expected.hf.data(), hf.size()), 0) << ToString(shape) << " " << d;
      }
    }
  }
}

TEST(Padding, GoesIntoFilesAndNotBack) {
  const TemporaryFolder folder;
  const TensorSpec native = {"m.A_log", DType::kF32, {5}};
  const auto writer = SafetensorsWriter::Create(folder.Path("in"), {native}).value();
  const PlannedOutput output = Plan(Pad(0, 8), native).value().front();
  ASSERT_TRUE(writer->WriteAt(0, 0, Expected(native, output).native_bytes()).ok());
  ASSERT_TRUE(writer->Commit().ok());
  FILE* const file = std::fopen(folder.Path("padded_here.toml").c_str(), "w");
  std::fputs(absl::StrCat("name = 'padded_here'\n[[rule]]\nsuffix = '.A_log'\nto = '.A_log'\n", Pad(0, 8)).c_str(),
             file);
  std::fclose(file);
  ASSERT_TRUE(AddAdapterFile(folder.Path("padded_here.toml")).ok());
  OfflineConvertOptions options;
  options.adapter = "padded_here";
  ASSERT_TRUE(ConvertFileToHf(options, folder.Path("in"), folder.Path("out")).ok());
  const auto made = SafetensorsFile::Open(folder.Path("out")).value();
  ASSERT_EQ(made->tensors().front().shape, Shape({8}));
  std::vector<float> values(8);
  std::memcpy(values.data(), made->data(0).data(), made->data(0).size());
  EXPECT_EQ(values, Expected(native, output).hf);
  EXPECT_THAT(std::string(PlanFromHf("padded_here", {}, made->tensors(), std::nullopt).status().message()),
              HasSubstr("m.A_log"));
}

}  // namespace
}  // namespace refit
