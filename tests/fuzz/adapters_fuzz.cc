// Tensors of any names, dtypes and shapes through the adapters: what is planned is valid, follows from the native
// tensor, and is what the streaming path writes; layout rules cut it within its bounds.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "common/adapters/adapter_registry.h"
#include "common/adapters/gemma4_moe_plan.h"
#include "common/adapters/layout_rules.h"
#include "common/adapters/native_range_writer.h"
#include "common/adapters/plan.h"
#include "tests/fuzz/fuzz_check.h"
#include "tests/fuzz/fuzz_input.h"

namespace refit {
namespace {

constexpr const char* kNameParts[] = {"model.",
                                      "language_model.",
                                      "layers.",
                                      "0",
                                      "17",
                                      "\xd9\xa3",
                                      ".moe.gate.",
                                      "proj.weight",
                                      "scale",
                                      ".moe.experts.",
                                      "gate_and_up_projs",
                                      "down_projs",
                                      ".router.",
                                      "per_expert_scale",
                                      ".experts.",
                                      "gate_up_proj",
                                      "down_proj",
                                      "\n",
                                      ".",
                                      "embed_tokens.weight"};

std::string AnyName(FuzzInput& input) {
  std::string name;
  for (uint64_t parts = input.Below(8); parts > 0; --parts) {
    const uint64_t chosen = input.Below(std::size(kNameParts) + 1);
    name += chosen < std::size(kNameParts) ? std::string(kNameParts[chosen]) : input.Bytes(input.Below(6));
  }
  return name;
}

DType AnyDType(FuzzInput& input) { return kAllDTypes[input.Below(std::size(kAllDTypes))]; }

TensorSpec AnyTensor(FuzzInput& input) {
  TensorSpec spec{AnyName(input), AnyDType(input), {}};
  const bool large = input.Below(8) == 0;
  for (uint64_t rank = input.Below(5); rank > 0; --rank) {
    spec.shape.push_back(large ? input.Integer<int64_t>() : static_cast<int64_t>(input.Below(6)));
  }
  return spec;
}

bool IsSmall(const TensorSpec& spec) {
  const auto bytes = ByteCount(spec.dtype, spec.shape);
  return bytes.ok() && *bytes <= 4096;
}

// [..., m, n] as [..., n, m], element by element.
std::string Transpose(const std::string& bytes, const TensorSpec& native) {
  const size_t element = ElementSize(native.dtype);
  const auto rows = static_cast<size_t>(native.shape[native.shape.size() - 2]);
  const auto columns = static_cast<size_t>(native.shape.back());
  std::string transposed = bytes;
  for (size_t i = 0; i * element < bytes.size(); ++i) {
    const size_t matrix = i / (rows * columns);
    const size_t row = i / columns % rows;
    const size_t column = i % columns;
    const size_t to = matrix * rows * columns + column * rows + row;
    std::memcpy(&transposed[to * element], &bytes[i * element], element);
  }
  return transposed;
}

// The elements of a box, row-major.
std::string CutOut(const std::string& bytes, const TensorSpec& native, const Box& box) {
  const size_t element = ElementSize(native.dtype);
  std::string own;
  BoxRuns(native.shape, box).ForEach(0, ElementCount(box), [&](int64_t place, int64_t count) {
    own += bytes.substr(static_cast<size_t>(place) * element, static_cast<size_t>(count) * element);
  });
  return own;
}

// In pieces of any length, as chunks come.
void CheckStreaming(const TensorSpec& native, const PlannedOutput& output, FuzzInput& input) {
  if (output.transform == Transform::kOnes || !IsSmall(native) || output.hf.dtype != native.dtype) return;
  std::string bytes(native.ByteSize(), '\0');
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 31 + i / 251);
  std::string hf(output.hf.ByteSize(), '\0');
  const size_t element = ElementSize(native.dtype);
  const TensorPart shard = TensorPart::Whole(native);
  int64_t written = 0;
  for (size_t at = 0; at < bytes.size();) {
    const size_t piece = std::min(bytes.size() - at, element * (1 + input.Below(40)));
    WriteNativeRange(shard, output, at, {reinterpret_cast<const std::byte*>(&bytes[at]), piece},
                     reinterpret_cast<std::byte*>(hf.data()),
                     [&](const StridedRuns& runs) { written += runs.count * runs.length; });
    at += piece;
  }
  FUZZ_CHECK(written == static_cast<int64_t>(hf.size() / element)) << native.ToString();
  const TensorSpec part = {"", native.dtype, output.box.has_value() ? output.box->sizes : native.shape};
  const std::string own = output.box.has_value() ? CutOut(bytes, native, *output.box) : bytes;
  if (output.transform == Transform::kFirstToLast) return;
  FUZZ_CHECK(hf == (output.transform == Transform::kPass ? own : Transpose(own, part))) << native.ToString();
}

void CheckOutput(const TensorSpec& native, const PlannedOutput& output, const ConvertOptions& options) {
  FUZZ_CHECK(Validate(output.hf).ok()) << native.ToString() << output.hf.ToString();
  if (output.transform == Transform::kOnes) return;
  // A family may keep a tensor's dtype, or make it F32.
  FUZZ_CHECK(output.hf.dtype == options.OutputDType(native) || output.hf.dtype == native.dtype ||
             output.hf.dtype == DType::kF32)
      << output.hf.ToString();
  const Box box = output.box.value_or(WholeBox(native.shape));
  FUZZ_CHECK(Validate(box, native.shape).ok()) << native.ToString() << ToString(box);
  FUZZ_CHECK(*ElementCount(output.hf.shape) == ElementCount(box)) << native.ToString() << output.hf.ToString();
}

LayoutRule AnyRule(FuzzInput& input) {
  LayoutRule rule;
  rule.scope = static_cast<LayoutRule::Scope>(input.Below(3));
  if (input.Bool()) rule.pattern = AnyName(input);
  rule.dimension = static_cast<uint32_t>(input.Below(5));
  rule.parts = input.Below(8) == 0 ? input.Integer<uint64_t>() : input.Below(6);
  rule.part = input.Below(8) == 0 ? input.Integer<uint64_t>() : input.Below(6);
  rule.split = input.Bool() ? Split::kBalanced : Split::kCeil;
  return rule;
}

void CheckLayout(const VersionPlan& plan, FuzzInput& input) {
  std::vector<LayoutRule> some(input.Below(4));
  for (LayoutRule& rule : some) rule = AnyRule(input);
  auto rules = LayoutRules::Compile(some);
  if (!rules.ok()) {
    FUZZ_CHECK(!rules.status().message().empty());
    return;
  }
  for (const VersionPlan::Output& output : plan.outputs) {
    const auto box = rules->BoxOf(output.planned);
    if (box.ok() && box->has_value()) {
      FUZZ_CHECK(Validate(**box, output.planned.hf.shape).ok()) << output.planned.hf.ToString();
    }
  }
  (void)rules->CheckAllApplied();
}

void CheckPlan(FuzzInput& input) {
  const std::vector<std::string> adapters = AdapterNames();
  const auto adapter = FindAdapter(adapters[input.Below(adapters.size())]);
  FUZZ_CHECK(adapter.ok());
  ConvertOptions options;
  if (input.Bool()) options.dtype = AnyDType(input);
  if (input.Bool()) {
    auto exclude = PythonRegex::Compile(AnyName(input));
    if (exclude.ok()) options.exclude = *exclude;
  }
  std::vector<TensorSpec> native(input.Below(5));
  for (TensorSpec& spec : native) spec = AnyTensor(input);

  const auto plan = PlanVersion(**adapter, native, options);
  if (!plan.ok()) {
    FUZZ_CHECK(absl::IsInvalidArgument(plan.status())) << plan.status().ToString();
    FUZZ_CHECK(!plan.status().message().empty());
    return;
  }
  FUZZ_CHECK(plan->native == native);
  FUZZ_CHECK(plan->outputs_of_native.size() == native.size());
  for (const VersionPlan::Output& output : plan->outputs) {
    CheckOutput(native[output.native_index], output.planned, options);
    CheckStreaming(native[output.native_index], output.planned, input);
  }
  CheckLayout(*plan, input);
}

// Whole state dicts, both ways. Values are checked by the goldens; here only that any input has an end.
void CheckStateDict(FuzzInput& input) {
  const Gemma4MoeConfig config{static_cast<int64_t>(input.Below(6))};
  const DType dtype = AnyDType(input);
  std::vector<TensorSpec> specs(input.Below(6));
  for (TensorSpec& spec : specs) spec = AnyTensor(input);
  const auto to_hf = PlanGemma4MoeToHf(config, dtype, specs, nullptr);
  if (!to_hf.ok()) {
    FUZZ_CHECK(!to_hf.status().message().empty());
  }
  const ExpertMesh mesh{static_cast<int64_t>(input.Below(4)), static_cast<int64_t>(input.Below(4)),
                        static_cast<int64_t>(input.Below(4)), static_cast<int64_t>(input.Below(4))};
  const auto from_hf = PlanGemma4MoeFromHf(config, dtype, specs, mesh);
  if (!from_hf.ok()) {
    FUZZ_CHECK(!from_hf.status().message().empty());
  }
}

}  // namespace
}  // namespace refit

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  refit::FuzzInput input(data, size);
  if (input.Below(4) == 0) {
    refit::CheckStateDict(input);
  } else {
    refit::CheckPlan(input);
  }
  return 0;
}
