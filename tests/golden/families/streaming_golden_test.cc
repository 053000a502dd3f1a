// Every family as the service runs it: shards of native tensors, in pieces, straight into their HF place.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <vector>

#include "common/adapters/adapter_registry.h"
#include "common/adapters/native_range_writer.h"
#include "common/tensor/kernels.h"
#include "tests/golden/families/family_case.h"

namespace refit {
namespace {

using Bytes = std::vector<std::byte>;
using Outputs = std::vector<PlannedOutput>;
using ::testing::ElementsAreArray;
using ::testing::UnorderedElementsAreArray;

absl::StatusOr<VersionPlan> Plan(const FamilyCase& golden, const std::vector<TensorSpec>& native) {
  absl::StatusOr<std::shared_ptr<const Adapter>> adapter = FindAdapter(golden.adapter, golden.options);
  if (!adapter.ok()) return adapter.status();
  ConvertOptions options;
  options.exclude = PythonRegex::Compile(golden.exclude_key_regex).value();
  return PlanVersion(**adapter, native, options);
}

std::vector<TensorSpec> SpecsOf(const VersionPlan& plan, size_t native) {
  std::vector<TensorSpec> specs;
  for (const size_t output : plan.outputs_of_native[native]) specs.push_back(plan.outputs[output].planned.hf);
  return specs;
}

// Boxes that tile the tensor: it is cut again and again along some dimension.
std::vector<TensorPart> RandomShards(const TensorSpec& native, std::mt19937& random) {
  std::vector<Box> boxes = {WholeBox(native.shape)};
  for (int cut = 0; cut < 3 && !native.shape.empty(); ++cut) {
    const size_t dimension = random() % native.shape.size();
    const size_t index = random() % boxes.size();
    const int64_t size = boxes[index].sizes[dimension];
    if (size < 2) continue;
    const int64_t at = 1 + static_cast<int64_t>(random() % static_cast<uint64_t>(size - 1));
    Box rest = boxes[index];
    rest.offsets[dimension] += at;
    rest.sizes[dimension] -= at;
    boxes[index].sizes[dimension] = at;
    boxes.push_back(rest);
  }
  std::vector<TensorPart> shards;
  shards.reserve(boxes.size());
  for (Box& box : boxes) shards.push_back({native, std::move(box)});
  std::shuffle(shards.begin(), shards.end(), random);
  return shards;
}

// The shard's elements, row-major in its box.
Bytes Cut(const TensorPart& shard, absl::Span<const std::byte> whole) {
  const size_t size = ElementSize(shard.tensor.dtype);
  Bytes bytes;
  BoxRuns(shard.tensor.shape, shard.box).ForEach(0, ElementCount(shard.box), [&](int64_t place, int64_t count) {
    const auto run = whole.subspan(static_cast<size_t>(place) * size, static_cast<size_t>(count) * size);
    bytes.insert(bytes.end(), run.begin(), run.end());
  });
  return bytes;
}

// What the output is when these shards come, each in pieces of any order and length.
Bytes Stream(const std::vector<TensorPart>& shards, const PlannedOutput& output, absl::Span<const std::byte> whole,
             std::mt19937& random) {
  Bytes hf(output.hf.ByteSize(), std::byte{0xEE});
  if (output.transform == Transform::kOnes) {
    FillOnes(output.hf.dtype, hf.data(), ElementCount(output.hf.shape).value());
    return hf;
  }
  int64_t elements = 0;
  for (const TensorPart& shard : shards) {
    const Bytes bytes = Cut(shard, whole);
    const size_t size = ElementSize(shard.tensor.dtype);
    for (size_t at = 0; at < bytes.size();) {
      const size_t piece = std::min(bytes.size() - at, (1 + random() % 40) * size);
      int64_t written = 0;
      WriteNativeRange(shard, output, at, absl::MakeConstSpan(bytes).subspan(at, piece), hf.data(),
                       [&](const StridedRuns& runs) { written += runs.count * runs.length; });
      EXPECT_TRUE(written == 0 || Needs(output, shard));
      elements += written;
      at += piece;
    }
  }
  EXPECT_EQ(elements, ElementCount(output.hf.shape).value()) << output.hf.name;
  return hf;
}

std::map<std::string, size_t> IndexOf(const SafetensorsFile& file) {
  std::map<std::string, size_t> index;
  for (size_t i = 0; i < file.tensors().size(); ++i) index[file.tensors()[i].name] = i;
  return index;
}

class FamilyStreaming : public ::testing::TestWithParam<FamilyCase> {};

TEST_P(FamilyStreaming, EqualsTheReference) {
  const FamilyCase& golden = GetParam();
  const auto input = SafetensorsFile::Open(golden.input).value();
  const absl::StatusOr<VersionPlan> plan = Plan(golden, input->tensors());
  if (golden.output.empty() || (golden.accepts_error && !plan.ok())) {
    EXPECT_EQ(plan.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(plan.status().message()), ::testing::HasSubstr(input->tensors().front().name));
    return;
  }
  ASSERT_TRUE(plan.ok()) << plan.status();
  const auto expected = SafetensorsFile::Open(golden.output).value();
  const std::map<std::string, size_t> expected_index = IndexOf(*expected);
  std::mt19937 random(7);
  for (size_t i = 0; i < plan->native.size(); ++i) {
    if (golden.order_free) {
      ASSERT_THAT(SpecsOf(*plan, i), UnorderedElementsAreArray(golden.outputs[i])) << plan->native[i].name;
    } else {
      ASSERT_THAT(SpecsOf(*plan, i), ElementsAreArray(golden.outputs[i])) << plan->native[i].name;
    }
    for (const size_t index : plan->outputs_of_native[i]) {
      const PlannedOutput& output = plan->outputs[index].planned;
      const absl::Span<const std::byte> wanted = expected->data(expected_index.at(output.hf.name));
      for (int round = 0; round < 4; ++round) {
        const std::vector<TensorPart> shards = round == 0 ? std::vector<TensorPart>{TensorPart::Whole(plan->native[i])}
                                                          : RandomShards(plan->native[i], random);
        const Bytes hf = Stream(shards, output, input->data(i), random);
        ASSERT_TRUE(std::equal(hf.begin(), hf.end(), wanted.begin(), wanted.end()))
            << output.hf.name << " of " << plan->native[i].name;
      }
    }
  }
  EXPECT_EQ(plan->outputs.size(), expected->tensors().size());
}

INSTANTIATE_TEST_SUITE_P(Families, FamilyStreaming, ::testing::ValuesIn(FamilyCases()),
                         [](const auto& test) { return TestName(test.param); });

}  // namespace
}  // namespace refit
