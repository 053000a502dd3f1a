// Conversion plans: an adapter computes the outputs of native tensors from names, dtypes and shapes alone.
//
// A plan is used for the manifest (before any data arrives), for streaming (native_range_writer.h), and for
// `convert_single_tensor_to_hf` on at::Tensor (gemma4_moe_state_dict_adapter.h). It does not need LibTorch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/adapters/python_regex.h"
#include "refit/box.h"
#include "refit/publish_options.h"
#include "refit/tensor_spec.h"

namespace refit {

// How an output's elements are made from its native tensor. If hf.dtype differs from the native dtype, they are also
// cast.
enum class Transform {
  kPass,              // same elements in the same order
  kTransposeLastTwo,  // the last two dimensions swapped, then contiguous
  kOnes,              // all ones, without data
  kFirstToLast,       // dimension 0 behind all others, then contiguous
};

// One of the experts that dimension 0 of a native tensor counts.
struct ExpertPlace {
  int64_t index = 0;
  int64_t count = 0;

  friend bool operator==(const ExpertPlace& a, const ExpertPlace& b) {
    return a.index == b.index && a.count == b.count;
  }
};

struct PlannedOutput {
  // Its shape may be another than the transform gives, with as many elements: they keep their order.
  TensorSpec hf;
  Transform transform = Transform::kPass;
  // Whether dimension 0 counts experts, so that it may be split among workers.
  bool experts = false;
  // Whether dimension 0 of the native tensor counts experts. Expert parallelism splits that dimension.
  bool native_experts = false;
  // The box of the native tensor that it is made of; unset: all of it. Only with kPass and kTransposeLastTwo.
  std::optional<Box> box;
  // Set if it is one of the experts of the native tensor.
  std::optional<ExpertPlace> expert;
  // The dimension of the box that hf.shape has more of: there are zeros behind. Only with kPass.
  std::optional<size_t> padded_dimension;
};

// Named choices of the trainer's configuration, such as {"activation", "relu2"}. What there is depends on the adapter.
using AdapterOptions = std::map<std::string, std::string>;

struct ConvertOptions {
  // Element type to which castable outputs are cast after conversion. Unset: no cast.
  std::optional<DType> dtype;
  // Tensors that are left out. A family says whether native or HF names are matched, and where. Null, or an empty
  // pattern: none.
  std::shared_ptr<const PythonRegex> exclude;

  // Outputs of native tensors whose name matches from its beginning keep their dtype. Null, or an empty pattern: none.
  std::shared_ptr<const PythonRegex> keep_dtype;

  // Whether the dtypes that a family keeps are kept: see Family::keep_dtype.
  bool keep_family_dtypes = true;

  bool KeepsDType(absl::string_view name) const {
    return keep_dtype != nullptr && !keep_dtype->pattern().empty() && keep_dtype->Match(name);
  }
  DType OutputDType(const TensorSpec& native) const {
    return dtype.has_value() && IsCastable(native.dtype) && !KeepsDType(native.name) ? *dtype : native.dtype;
  }
};

// The options of a version. Errors as PythonRegex::Compile.
absl::StatusOr<ConvertOptions> CompileOptions(const PublishOptions& options);

// INVALID_ARGUMENT unless `dtype` is one that tensors are cast to.
absl::Status CheckCastTarget(DType dtype);

// The same of options.dtype, if there is one.
absl::Status Validate(const ConvertOptions& options);

// The plan of a whole version.
struct VersionPlan {
  struct Output {
    PlannedOutput planned;
    size_t native_index;  // its native tensor
  };
  std::vector<TensorSpec> native;                                 // as declared
  std::vector<Output> outputs;                                    // the manifest, in order
  std::vector<absl::InlinedVector<size_t, 2>> outputs_of_native;  // indices into `outputs`, per native tensor
};

// The conversion for a model family. Stateless and thread-safe.
class Adapter {
 public:
  virtual ~Adapter() = default;

  // The name in OpenVersion, such as "gemma4_moe".
  virtual absl::string_view name() const = 0;

  // Whether names decide what becomes of a tensor.
  virtual bool has_rules() const = 0;

  // The outputs of one native tensor, in emission order, as the reference's `convert_single_tensor_to_hf` returns them.
  // Empty if the tensor is excluded. INVALID_ARGUMENT, naming the tensor, where the reference raises.
  virtual absl::StatusOr<std::vector<PlannedOutput>> PlanTensor(const TensorSpec& native,
                                                                const ConvertOptions& options) const = 0;

  // What single tensors do not tell: INVALID_ARGUMENT for a version that would be half converted.
  virtual absl::Status CheckVersion(const VersionPlan& plan) const = 0;
};

// What a plan may have.
struct PlanLimits {
  size_t max_name_bytes = kMaxNameBytes;
  size_t max_outputs = 1'000'000;
};

// Plans all tensors, in order. INVALID_ARGUMENT for a bad option, a bad spec, a native name declared twice, two outputs
// with one name (both native tensors are named), or an output of more than 2^63-1 bytes. RESOURCE_EXHAUSTED for too
// many outputs.
absl::StatusOr<VersionPlan> PlanVersion(const Adapter& adapter, std::vector<TensorSpec> native,
                                        const ConvertOptions& options, const PlanLimits& limits = {});

// Makes a plan from the outputs that `plan_tensor` returns for each native tensor. Errors for name collisions, and for
// outputs that are too large or too many, as above. Native names and shapes are not checked.
absl::StatusOr<VersionPlan> AssemblePlan(
    std::vector<TensorSpec> native,
    absl::FunctionRef<absl::StatusOr<std::vector<PlannedOutput>>(const TensorSpec&)> plan_tensor,
    size_t max_outputs = PlanLimits().max_outputs);

}  // namespace refit
