// Families as TOML: what is read has an adapter; what goes through its table backwards goes forwards to the same place.
#include <algorithm>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "common/adapters/family_adapter.h"
#include "common/adapters/family_reader.h"
#include "common/adapters/from_hf_plan.h"
#include "tests/fuzz/fuzz_check.h"

namespace refit {
namespace {

constexpr size_t kMaxTensors = 64;
constexpr int64_t kMaxDimension = 64;

// Lines that begin with "#: ", which to TOML are comments.
std::vector<TensorSpec> TensorsOf(absl::string_view text) {
  std::vector<TensorSpec> tensors;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    if (!absl::StartsWith(line, "#: ") || tensors.size() == kMaxTensors) continue;
    const std::vector<std::string> words = absl::StrSplit(line.substr(3), ' ', absl::SkipEmpty());
    if (words.empty()) continue;
    TensorSpec tensor{words[0], DType::kBF16, {}};
    for (size_t i = 1; i < words.size() && i < 6; ++i) {
      int64_t size = 0;
      if (absl::SimpleAtoi(words[i], &size)) tensor.shape.push_back(std::clamp<int64_t>(size, 0, kMaxDimension));
    }
    tensors.push_back(std::move(tensor));
  }
  return tensors;
}

std::map<std::string, Shape> ShapesOf(const std::vector<TensorSpec>& tensors) {
  std::map<std::string, Shape> shapes;
  for (const TensorSpec& tensor : tensors) shapes[tensor.name] = tensor.shape;
  return shapes;
}

std::vector<TensorSpec> OutputsOf(const VersionPlan& plan) {
  std::vector<TensorSpec> outputs;
  for (const VersionPlan::Output& output : plan.outputs) {
    const PlannedOutput& planned = output.planned;
    const Shape& native = plan.native[output.native_index].shape;
    FUZZ_CHECK(!planned.box.has_value() || Validate(*planned.box, native).ok()) << planned.hf.name;
    outputs.push_back(planned.hf);
  }
  return outputs;
}

// What comes back makes these very tensors.
void CheckBack(const std::shared_ptr<const Family>& family, const std::vector<TensorSpec>& hf) {
  const absl::StatusOr<FromHfPlan> back = PlanFromHf(family, {}, hf, std::nullopt);
  if (!back.ok()) {
    FUZZ_CHECK(!back.status().message().empty());
    return;
  }
  FUZZ_CHECK(back->hf.size() == hf.size()) << back->hf.size() << hf.size();
  FUZZ_CHECK(back->dtypes.size() == back->forward.native.size());
  FUZZ_CHECK(ShapesOf(OutputsOf(back->forward)) == ShapesOf(hf));
}

void Run(absl::string_view text) {
  const absl::StatusOr<std::shared_ptr<const Family>> family =
      ReadFamily(text, "fuzz.toml", [](absl::string_view) { return std::nullopt; });
  if (!family.ok()) {
    FUZZ_CHECK(family.status().code() == absl::StatusCode::kInvalidArgument) << family.status();
    FUZZ_CHECK(absl::StartsWith(family.status().message(), "fuzz.toml:")) << family.status();
    return;
  }
  const absl::StatusOr<std::shared_ptr<const Adapter>> adapter = MakeAdapter(*family, {});
  FUZZ_CHECK(adapter.ok()) << adapter.status();
  const std::vector<TensorSpec> tensors = TensorsOf(text);
  CheckBack(*family, tensors);
  const absl::StatusOr<VersionPlan> plan = PlanVersion(**adapter, tensors, {});
  if (plan.ok()) CheckBack(*family, OutputsOf(*plan));
}

}  // namespace
}  // namespace refit

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  refit::Run({reinterpret_cast<const char*>(data), size});
  return 0;
}
