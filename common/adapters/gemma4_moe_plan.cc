#include "common/adapters/gemma4_moe_plan.h"

#include <algorithm>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "common/adapters/gemma4_moe_names.h"
#include "common/tensor/kernels.h"

namespace refit {
namespace {

// Whether the last two dimensions can be transposed.
absl::Status CheckHasMatrices(const TensorSpec& native) {
  if (!CanTranspose(native.dtype, native.dtype)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "expert tensor ", Printable(native.name), " is ", Name(native.dtype),
        ": packed values cannot be transposed; expected one value an element (the adapter \"identity\" passes it)"));
  }
  if (native.shape.size() >= 2) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("expert tensor ", Printable(native.name), " has shape ",
                                                 ToString(native.shape), ", expected at least 2 dimensions"));
}

absl::Status NoLayer(const TensorSpec& native, absl::string_view expected) {
  return absl::InvalidArgumentError(
      absl::StrCat("expert tensor ", Printable(native.name), " has no \"", expected, "\" in its name"));
}

Shape SwapLastTwo(Shape shape) {
  std::swap(shape[shape.size() - 1], shape[shape.size() - 2]);
  return shape;
}

PlannedOutput Transposed(std::string name, DType dtype, const TensorSpec& native) {
  const bool experts = native.shape.size() > 2;
  return {{std::move(name), dtype, SwapLastTwo(native.shape)}, Transform::kTransposeLastTwo, experts};
}

// The names and shapes of an expert tensor's outputs.
struct ExpertOutputs {
  std::string name;
  TensorSpec scale;  // only of a down projection
};

// The outputs of one native tensor, with this dtype. `name_experts` is called only for expert tensors.
absl::StatusOr<std::vector<PlannedOutput>> PlanToHf(
    const TensorSpec& native, DType dtype,
    absl::FunctionRef<absl::StatusOr<ExpertOutputs>(gemma4::Role)> name_experts) {
  std::vector<PlannedOutput> outputs;
  if (std::optional<std::string> router = gemma4::HfRouterName(native.name)) {
    outputs.push_back({{*std::move(router), dtype, native.shape}, Transform::kPass});
    return outputs;
  }
  const gemma4::Role role = gemma4::RoleOf(native.name);
  if (role == gemma4::Role::kOther) {
    outputs.push_back({{native.name, dtype, native.shape}, Transform::kPass});
    return outputs;
  }
  if (absl::Status status = CheckHasMatrices(native); !status.ok()) return status;
  absl::StatusOr<ExpertOutputs> experts = name_experts(role);
  if (!experts.ok()) return experts.status();
  outputs.push_back(Transposed(std::move(experts->name), dtype, native));
  if (role == gemma4::Role::kDown) outputs.push_back({std::move(experts->scale), Transform::kOnes});
  return outputs;
}

}  // namespace

absl::StatusOr<VersionPlan> PlanGemma4MoeToHf(const Gemma4MoeConfig& config, DType adapter_dtype,
                                              std::vector<TensorSpec> native, const PythonRegex* exclude) {
  if (absl::Status status = CheckCastTarget(adapter_dtype); !status.ok()) return status;
  const std::string prefix = absl::StrCat(gemma4::ModelPrefix(native), "language_model.");

  return AssemblePlan(std::move(native), [&](const TensorSpec& spec) {
    auto outputs = PlanToHf(spec, spec.dtype, [&](gemma4::Role role) -> absl::StatusOr<ExpertOutputs> {
      const std::optional<std::string> layer = gemma4::FirstLayer(spec.name);
      if (!layer.has_value()) return NoLayer(spec, "layers.N");
      return ExpertOutputs{
          absl::StrCat(prefix, *layer, role == gemma4::Role::kDown ? gemma4::kDownHf : gemma4::kGateAndUpHf),
          {absl::StrCat(prefix, *layer, gemma4::kScaleHf), adapter_dtype, {config.n_routed_experts}}};
    });
    if (outputs.ok() && exclude != nullptr && !exclude->pattern().empty()) {
      outputs->erase(std::remove_if(outputs->begin(), outputs->end(),
                                    [&](const PlannedOutput& output) { return exclude->Match(output.hf.name); }),
                     outputs->end());
    }
    return outputs;
  });
}

}  // namespace refit
