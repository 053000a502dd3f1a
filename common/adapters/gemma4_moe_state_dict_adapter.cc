#include "common/adapters/gemma4_moe_state_dict_adapter.h"

#include <ATen/Functions.h>
#include <c10/core/GradMode.h>

#include "absl/strings/str_cat.h"
#include "common/adapters/adapter_registry.h"
#include "common/adapters/torch_errors.h"

namespace refit {
namespace {

constexpr absl::string_view kExtraState = ".*_extra_state.*";

absl::StatusOr<std::vector<TensorSpec>> SpecsOf(const StateDict& state_dict) {
  std::vector<TensorSpec> specs;
  specs.reserve(state_dict.size());
  for (const auto& [name, tensor] : state_dict) {
    absl::StatusOr<TensorSpec> spec = SpecOf(name, tensor);
    if (!spec.ok()) return spec.status();
    specs.push_back(*std::move(spec));
  }
  return specs;
}

absl::Status Annotate(const absl::Status& status, absl::string_view name) {
  return absl::Status(status.code(), absl::StrCat("tensor ", Printable(name), ": ", status.message()));
}

// This rank's part of a stacked HF expert tensor, still in HF layout, where native rows are columns.
at::Tensor SliceHf(const NativeOutput& output, const at::Tensor& hf) {
  return hf.narrow(0, output.experts.begin, output.experts.size()).narrow(2, output.rows.begin, output.rows.size());
}

// Multiplies in the source dtypes: two equal 16-bit types round once here; different ones are promoted.
at::Tensor ScaleExperts(const NativeOutput& output, const at::Tensor& hf, const at::Tensor& scale) {
  return at::mul(hf, scale.narrow(0, output.experts.begin, output.experts.size()).view({-1, 1, 1}));
}

// The part of the native tensor that the output is made of.
TypedTensor Part(const PlannedOutput& output, const TypedTensor& native) {
  if (!output.box.has_value()) return native;
  const at::NoGradGuard no_grad;
  at::Tensor part = native.data.detach();
  for (size_t d = 0; d < output.box->sizes.size(); ++d) {
    part = part.narrow(static_cast<int64_t>(d), output.box->offsets[d], output.box->sizes[d]);
  }
  return {std::move(part), *native.dtype};
}

absl::StatusOr<TypedTensor> Transformed(const PlannedOutput& output, const TypedTensor& part) {
  switch (output.transform) {
    case Transform::kPass:
      return CastTo(part, output.hf.dtype);
    case Transform::kTransposeLastTwo:
      return TransposeLastTwo(part, output.hf.dtype);
    case Transform::kFirstToLast:
      return CastTo({part.data.detach().movedim(0, -1).contiguous(), *part.dtype}, output.hf.dtype);
    case Transform::kOnes:
      return Ones(output.hf.dtype, output.hf.shape);
  }
  return absl::InternalError("unknown transform");
}

// Zeros behind the dimension that the output has more of.
at::Tensor Padded(const PlannedOutput& output, const at::Tensor& data) {
  const size_t lost = static_cast<size_t>(data.dim()) - output.hf.shape.size();
  const auto d = static_cast<int64_t>(*output.padded_dimension);
  std::vector<int64_t> sizes = data.sizes().vec();
  sizes[*output.padded_dimension] = output.hf.shape[*output.padded_dimension - lost] - data.size(d);
  return at::cat({data, at::zeros(sizes, data.options())}, d);
}

absl::StatusOr<TypedTensor> Execute(const PlannedOutput& output, const TypedTensor& native) {
  return CatchTorchErrors("taking a part", [&]() -> absl::StatusOr<TypedTensor> {
    absl::StatusOr<TypedTensor> made = Transformed(output, Part(output, native));
    if (!made.ok() || made->data.sizes() == at::IntArrayRef(output.hf.shape.data(), output.hf.shape.size()))
      return made;
    const at::NoGradGuard no_grad;
    if (output.padded_dimension.has_value()) made->data = Padded(output, made->data.detach());
    made->data = made->data.detach().contiguous().view(at::IntArrayRef(output.hf.shape.data(), output.hf.shape.size()));
    return made;
  });
}

}  // namespace

absl::StatusOr<TypedTensor> MakeHfTensor(const PlannedOutput& output, const TypedTensor& native) {
  absl::StatusOr<TypedTensor> tensor = Execute(output, native);
  if (!tensor.ok()) return Annotate(tensor.status(), output.hf.name);
  return tensor;
}

absl::StatusOr<TypedTensor> MakeNativeTensor(const NativeOutput& output, const TypedTensor& source,
                                             const TypedTensor& scale) {
  if (output.kind == NativeOutput::Kind::kPass) return source;
  absl::StatusOr<TypedTensor> tensor = CatchTorchErrors("slicing and scaling", [&]() -> absl::StatusOr<TypedTensor> {
    const at::NoGradGuard no_grad;
    at::Tensor experts = SliceHf(output, source.data.detach());
    if (output.kind == NativeOutput::Kind::kScaledDown) {
      experts = ScaleExperts(output, experts, scale.data.detach());
    }
    return TransposeLastTwo(experts, output.native.dtype);
  });
  if (!tensor.ok()) return Annotate(tensor.status(), output.native.name);
  return tensor;
}

absl::StatusOr<StateDict> Gemma4MoEStateDictAdapter::from_hf(const StateDict& hf_state_dict,
                                                             const ExpertMesh& mesh) const {
  absl::StatusOr<std::vector<TensorSpec>> specs = SpecsOf(hf_state_dict);
  if (!specs.ok()) return specs.status();
  absl::StatusOr<std::vector<NativeOutput>> plan = PlanGemma4MoeFromHf(config_, dtype_, *specs, mesh);
  if (!plan.ok()) return plan.status();
  StateDict native;
  for (const NativeOutput& output : *plan) {
    absl::StatusOr<TypedTensor> tensor =
        MakeNativeTensor(output, hf_state_dict[output.source].second, hf_state_dict[output.scale].second);
    if (!tensor.ok()) return tensor.status();
    native.emplace_back(output.native.name, *std::move(tensor));
  }
  return native;
}

absl::StatusOr<StateDict> Gemma4MoEStateDictAdapter::to_hf(const StateDict& state_dict,
                                                           absl::string_view exclude_key_regex,
                                                           bool /*quantization*/) const {
  absl::StatusOr<std::shared_ptr<const PythonRegex>> exclude = PythonRegex::Compile(exclude_key_regex);
  if (!exclude.ok()) return exclude.status();
  absl::StatusOr<std::vector<TensorSpec>> specs = SpecsOf(state_dict);
  if (!specs.ok()) return specs.status();
  absl::StatusOr<VersionPlan> plan = PlanGemma4MoeToHf(config_, dtype_, *std::move(specs), exclude->get());
  if (!plan.ok()) return plan.status();
  StateDict hf;
  for (const VersionPlan::Output& output : plan->outputs) {
    absl::StatusOr<TypedTensor> tensor = MakeHfTensor(output.planned, state_dict[output.native_index].second);
    if (!tensor.ok()) return tensor.status();
    hf.emplace_back(output.planned.hf.name, *std::move(tensor));
  }
  return hf;
}

absl::StatusOr<std::vector<std::string>> Gemma4MoEStateDictAdapter::get_hf_state_dict_keys(
    absl::Span<const TensorSpec> native) const {
  absl::StatusOr<std::shared_ptr<const PythonRegex>> exclude = PythonRegex::Compile(kExtraState);
  if (!exclude.ok()) return exclude.status();
  absl::StatusOr<VersionPlan> plan =
      PlanGemma4MoeToHf(config_, dtype_, std::vector<TensorSpec>(native.begin(), native.end()), exclude->get());
  if (!plan.ok()) return plan.status();
  std::vector<std::string> keys;
  for (VersionPlan::Output& output : plan->outputs) keys.push_back(std::move(output.planned.hf.name));
  return keys;
}

absl::StatusOr<std::vector<std::string>> Gemma4MoEStateDictAdapter::get_hf_state_dict_keys(
    const StateDict& state_dict) const {
  absl::StatusOr<std::vector<TensorSpec>> specs = SpecsOf(state_dict);
  if (!specs.ok()) return specs.status();
  return get_hf_state_dict_keys(*specs);
}

absl::StatusOr<StateDict> Gemma4MoEStateDictAdapter::convert_single_tensor_to_hf(absl::string_view fqn,
                                                                                 const TypedTensor& tensor,
                                                                                 const ConvertOptions& options) const {
  if (absl::Status status = Validate(options); !status.ok()) return status;
  absl::StatusOr<TensorSpec> spec = SpecOf(fqn, tensor);
  if (!spec.ok()) return spec.status();
  const absl::StatusOr<std::shared_ptr<const Adapter>> adapter = FindAdapter("gemma4_moe");
  if (!adapter.ok()) return adapter.status();
  absl::StatusOr<std::vector<PlannedOutput>> outputs = (*adapter)->PlanTensor(*spec, options);
  if (!outputs.ok()) return outputs.status();
  StateDict hf;
  for (const PlannedOutput& output : *outputs) {
    absl::StatusOr<TypedTensor> made = MakeHfTensor(output, tensor);
    if (!made.ok()) return made.status();
    hf.emplace_back(output.hf.name, *std::move(made));
  }
  return hf;
}

}  // namespace refit
