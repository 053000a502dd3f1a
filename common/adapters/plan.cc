#include "common/adapters/plan.h"

#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/adapters/gemma4_moe_plan.h"

namespace refit {
namespace {

// For trainers whose tensors already have HF names and layouts.
class IdentityAdapter final : public Adapter {
 public:
  absl::string_view name() const override { return "identity"; }
  absl::StatusOr<std::vector<PlannedOutput>> PlanTensor(const TensorSpec& native,
                                                        const ConvertOptions& options) const override {
    std::vector<PlannedOutput> outputs;
    if (options.Excludes(native.name)) return outputs;
    outputs.push_back({{native.name, options.OutputDType(native), native.shape}, Transform::kPass});
    return outputs;
  }
};

std::vector<std::shared_ptr<const Adapter>> Adapters() {
  return {std::make_shared<Gemma4MoeAdapter>(), std::make_shared<IdentityAdapter>()};
}

// Maps an output's name to the index of its native tensor.
using Owners = absl::flat_hash_map<absl::string_view, size_t>;

absl::Status CheckNative(const std::vector<TensorSpec>& native) {
  Owners owners;
  owners.reserve(native.size());
  for (size_t i = 0; i < native.size(); ++i) {
    const auto [owner, is_new] = owners.emplace(native[i].name, i);
    if (!is_new) {
      return absl::InvalidArgumentError(absl::StrCat("native tensor ", Printable(native[i].name),
                                                     " is declared twice: at ", owner->second, " and at ", i));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckOutputs(const VersionPlan& plan) {
  Owners owners;
  owners.reserve(plan.outputs.size());
  for (const VersionPlan::Output& output : plan.outputs) {
    const absl::string_view name = output.planned.hf.name;
    const auto [owner, is_new] = owners.emplace(name, output.native_index);
    if (is_new) continue;
    return absl::InvalidArgumentError(absl::StrCat("native tensors ", Printable(plan.native[owner->second].name),
                                                   " and ", Printable(plan.native[output.native_index].name),
                                                   " both become ", Printable(name)));
  }
  return absl::OkStatus();
}

// Null for an empty pattern.
absl::StatusOr<std::shared_ptr<const PythonRegex>> CompileIfAny(const std::string& pattern) {
  if (pattern.empty()) return nullptr;
  return PythonRegex::Compile(pattern);
}

}  // namespace

absl::StatusOr<ConvertOptions> CompileOptions(const PublishOptions& options) {
  ConvertOptions compiled;
  compiled.dtype = options.dtype;
  absl::StatusOr<std::shared_ptr<const PythonRegex>> exclude = CompileIfAny(options.exclude_key_regex);
  if (!exclude.ok()) return exclude.status();
  compiled.exclude = *std::move(exclude);
  absl::StatusOr<std::shared_ptr<const PythonRegex>> keep_dtype = CompileIfAny(options.keep_dtype_regex);
  if (!keep_dtype.ok()) return keep_dtype.status();
  compiled.keep_dtype = *std::move(keep_dtype);
  return compiled;
}

absl::StatusOr<std::shared_ptr<const Adapter>> FindAdapter(absl::string_view name) {
  const absl::string_view wanted = name.empty() ? "gemma4_moe" : name;
  for (std::shared_ptr<const Adapter>& adapter : Adapters()) {
    if (adapter->name() == wanted) return std::move(adapter);
  }
  return absl::NotFoundError(
      absl::StrCat("no adapter \"", Printable(name), "\"; known are ", absl::StrJoin(AdapterNames(), ", ")));
}

std::vector<std::string> AdapterNames() {
  std::vector<std::string> names;
  for (const std::shared_ptr<const Adapter>& adapter : Adapters()) names.emplace_back(adapter->name());
  return names;
}

absl::Status CheckCastTarget(DType dtype) {
  if (IsCastable(dtype)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("tensors cannot be cast to ", Name(dtype), "; expected F64, F32, F16 or BF16"));
}

absl::Status Validate(const ConvertOptions& options) {
  return options.dtype.has_value() ? CheckCastTarget(*options.dtype) : absl::OkStatus();
}

absl::StatusOr<VersionPlan> PlanVersion(const Adapter& adapter, std::vector<TensorSpec> native,
                                        const ConvertOptions& options, size_t max_name_bytes) {
  if (absl::Status status = Validate(options); !status.ok()) return status;
  for (const TensorSpec& spec : native) {
    if (absl::Status status = Validate(spec, max_name_bytes); !status.ok()) return status;
  }
  return AssemblePlan(std::move(native), [&](const TensorSpec& spec) { return adapter.PlanTensor(spec, options); });
}

absl::StatusOr<VersionPlan> AssemblePlan(
    std::vector<TensorSpec> native,
    absl::FunctionRef<absl::StatusOr<std::vector<PlannedOutput>>(const TensorSpec&)> plan_tensor) {
  if (absl::Status status = CheckNative(native); !status.ok()) return status;
  VersionPlan plan;
  plan.outputs_of_native.resize(native.size());
  plan.outputs.reserve(native.size());
  for (size_t i = 0; i < native.size(); ++i) {
    absl::StatusOr<std::vector<PlannedOutput>> outputs = plan_tensor(native[i]);
    if (!outputs.ok()) return outputs.status();
    for (PlannedOutput& output : *outputs) {
      // A cast may make an output too large for its size to be represented.
      if (absl::StatusOr<uint64_t> bytes = ByteCount(output.hf.dtype, output.hf.shape); !bytes.ok()) {
        return absl::InvalidArgumentError(absl::StrCat("native tensor ", Printable(native[i].name), " becomes ",
                                                       Name(output.hf.dtype), ": ", bytes.status().message()));
      }
      plan.outputs_of_native[i].push_back(plan.outputs.size());
      plan.outputs.push_back({std::move(output), i});
    }
  }
  plan.native = std::move(native);
  if (absl::Status status = CheckOutputs(plan); !status.ok()) return status;
  return plan;
}

}  // namespace refit
