// convert_single_tensor_to_hf as the service runs it: native bytes in pieces, straight into their HF place.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

#include "common/adapters/adapter_registry.h"
#include "common/adapters/native_range_writer.h"
#include "common/tensor/kernels.h"
#include "tests/golden/gemma4_moe/golden_case.h"

namespace refit {
namespace {

using Bytes = std::vector<std::byte>;

VersionPlan Plan(const GoldenCase& golden, const std::vector<TensorSpec>& native) {
  ConvertOptions options;
  options.exclude = PythonRegex::Compile(golden.exclude_key_regex).value();
  return PlanVersion(*FindAdapter("gemma4_moe").value(), native, options).value();
}

// Pieces of at most `longest` bytes, in any order.
Bytes Stream(const TensorSpec& native, const PlannedOutput& output, absl::Span<const std::byte> bytes, size_t longest) {
  Bytes hf(output.hf.ByteSize(), std::byte{0xEE});
  if (output.transform == Transform::kOnes) {
    FillOnes(output.hf.dtype, hf.data(), output.hf.shape[0]);
    return hf;
  }
  const size_t size = ElementSize(native.dtype);
  const size_t step = std::max(size, longest / size * size);
  std::vector<size_t> offsets;
  for (size_t offset = 0; offset < bytes.size(); offset += step) offsets.push_back(offset);
  std::shuffle(offsets.begin(), offsets.end(), std::mt19937(7));
  const TensorPart whole = TensorPart::Whole(native);
  for (size_t offset : offsets) WriteNativeRange(whole, output, offset, bytes.subspan(offset, step), hf.data());
  return hf;
}

class Streaming : public ::testing::TestWithParam<GoldenCase> {};

TEST_P(Streaming, EqualsTheReference) {
  const GoldenCase& golden = GetParam();
  if (golden.output.empty()) {
    const GoldenTensors native(golden.input);
    const absl::Status status = PlanVersion(*FindAdapter("gemma4_moe").value(), native.file().tensors(), {}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return;
  }
  const GoldenTensors native(golden.input);
  const GoldenTensors expected(golden.output);
  const VersionPlan plan = Plan(golden, native.file().tensors());
  ASSERT_EQ(plan.outputs.size(), golden.output_keys.size());
  EXPECT_EQ(plan.outputs.size(), expected.size());
  for (size_t i = 0; i < plan.outputs.size(); ++i) {
    const VersionPlan::Output& output = plan.outputs[i];
    EXPECT_EQ(output.planned.hf.name, golden.output_keys[i]);
    for (size_t longest : {size_t{1}, size_t{100}, size_t{1} << 20}) {
      expected.ExpectHas(output.planned.hf, Stream(plan.native[output.native_index], output.planned,
                                                   native.file().data(output.native_index), longest));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Gemma4Moe, Streaming, ::testing::ValuesIn(GoldenCases("convert_single_tensor_to_hf")),
                         [](const auto& test) { return test.param.id; });

}  // namespace
}  // namespace refit
