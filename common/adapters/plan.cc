#include "common/adapters/plan.h"

#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "common/adapters/recognise_family.h"

namespace refit {
namespace {

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
  compiled.keep_family_dtypes = options.keep_family_dtypes;
  absl::StatusOr<std::shared_ptr<const PythonRegex>> exclude = CompileIfAny(options.exclude_key_regex);
  if (!exclude.ok()) return exclude.status();
  compiled.exclude = *std::move(exclude);
  absl::StatusOr<std::shared_ptr<const PythonRegex>> keep_dtype = CompileIfAny(options.keep_dtype_regex);
  if (!keep_dtype.ok()) return keep_dtype.status();
  compiled.keep_dtype = *std::move(keep_dtype);
  return compiled;
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
                                        const ConvertOptions& options, const PlanLimits& limits) {
  if (absl::Status status = Validate(options); !status.ok()) return status;
  for (const TensorSpec& spec : native) {
    if (absl::Status status = Validate(spec, limits.max_name_bytes); !status.ok()) return status;
  }
  if (adapter.has_rules()) {
    if (absl::Status status = CheckNotWrapped(native); !status.ok()) return status;
  }
  absl::StatusOr<VersionPlan> plan = AssemblePlan(
      std::move(native), [&](const TensorSpec& spec) { return adapter.PlanTensor(spec, options); }, limits.max_outputs);
  if (!plan.ok()) return plan;
  if (absl::Status status = adapter.CheckVersion(*plan); !status.ok()) return status;
  return plan;
}

absl::StatusOr<VersionPlan> AssemblePlan(
    std::vector<TensorSpec> native,
    absl::FunctionRef<absl::StatusOr<std::vector<PlannedOutput>>(const TensorSpec&)> plan_tensor, size_t max_outputs) {
  if (absl::Status status = CheckNative(native); !status.ok()) return status;
  VersionPlan plan;
  plan.outputs_of_native.resize(native.size());
  plan.outputs.reserve(native.size());
  for (size_t i = 0; i < native.size(); ++i) {
    absl::StatusOr<std::vector<PlannedOutput>> outputs = plan_tensor(native[i]);
    if (!outputs.ok()) return outputs.status();
    if (outputs->size() > max_outputs - plan.outputs.size()) {
      return absl::ResourceExhaustedError(absl::StrCat("native tensor ", Printable(native[i].name), " becomes ",
                                                       outputs->size(), " tensors, more than the ", max_outputs,
                                                       " that a version may have"));
    }
    plan.outputs_of_native[i].reserve(outputs->size());
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
