// Conversion plans: what an adapter makes of native tensors, decided from names, dtypes and shapes alone.
//
// One plan has three uses: the manifest (before any data came), the streaming path (native_range_writer.h), and
// `convert_single_tensor_to_hf` on at::Tensor (gemma4_moe_state_dict_adapter.h). No LibTorch here.
#pragma once

#include <cstddef>
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
#include "refit/tensor_spec.h"

namespace refit {

// How an output's elements come from its native tensor. A cast is implied where hf.dtype differs from the native dtype.
enum class Transform {
  kPass,              // same elements in the same order
  kTransposeLastTwo,  // the last two dimensions swapped, then contiguous
  kOnes,              // no data needed: all ones
};

struct PlannedOutput {
  TensorSpec hf;
  Transform transform = Transform::kPass;
  // Dimension 0, here and in the native tensor, counts experts: what expert parallelism cuts.
  bool experts = false;
};

struct ConvertOptions {
  // Castable outputs get this dtype after conversion. Unset: each keeps its own.
  std::optional<DType> dtype;
  // Native names that match from their beginning give no outputs. Null, or an empty pattern: none excluded.
  std::shared_ptr<const PythonRegex> exclude;

  // What becomes of native names that match from their beginning keeps their dtype. Null, or an empty pattern: none.
  std::shared_ptr<const PythonRegex> keep_dtype;

  bool Excludes(absl::string_view name) const { return Matches(exclude, name); }
  bool KeepsDType(absl::string_view name) const { return Matches(keep_dtype, name); }
  DType OutputDType(const TensorSpec& native) const {
    return dtype.has_value() && IsCastable(native.dtype) && !KeepsDType(native.name) ? *dtype : native.dtype;
  }

 private:
  static bool Matches(const std::shared_ptr<const PythonRegex>& regex, absl::string_view name) {
    return regex != nullptr && !regex->pattern().empty() && regex->Match(name);
  }
};

// INVALID_ARGUMENT unless `dtype` is one that tensors are cast to.
absl::Status CheckCastTarget(DType dtype);

// The same of options.dtype, if there is one.
absl::Status Validate(const ConvertOptions& options);

// A model family's conversion. Stateless and thread-safe.
class Adapter {
 public:
  virtual ~Adapter() = default;

  // As OpenVersion names it, such as "gemma4_moe".
  virtual absl::string_view name() const = 0;

  // The outputs of one native tensor, in emission order, as `convert_single_tensor_to_hf` of the reference gives them.
  // Empty when excluded. INVALID_ARGUMENT, naming the tensor, where the reference would raise.
  virtual absl::StatusOr<std::vector<PlannedOutput>> PlanTensor(const TensorSpec& native,
                                                                const ConvertOptions& options) const = 0;
};

// A registered adapter; "" means "gemma4_moe". NOT_FOUND, listing those known, otherwise.
absl::StatusOr<std::shared_ptr<const Adapter>> FindAdapter(absl::string_view name);
std::vector<std::string> AdapterNames();

// The plan of a whole version.
struct VersionPlan {
  struct Output {
    PlannedOutput planned;
    size_t native_index;  // the native tensor that it comes from
  };
  std::vector<TensorSpec> native;                                 // as declared
  std::vector<Output> outputs;                                    // the manifest, in order
  std::vector<absl::InlinedVector<size_t, 2>> outputs_of_native;  // indices into `outputs`, one list a native tensor
};

// Plans every tensor in order. INVALID_ARGUMENT for a bad option, a bad spec, a native name declared twice, two outputs
// of one name (both native tensors are named), or an output of more than 2^63-1 bytes.
absl::StatusOr<VersionPlan> PlanVersion(const Adapter& adapter, std::vector<TensorSpec> native,
                                        const ConvertOptions& options, size_t max_name_bytes = kMaxNameBytes);

// Makes a plan of what `plan_tensor` gives for each native tensor. INVALID_ARGUMENT for names that collide and outputs
// that are too large, as above; native names and shapes are not looked into.
absl::StatusOr<VersionPlan> AssemblePlan(
    std::vector<TensorSpec> native,
    absl::FunctionRef<absl::StatusOr<std::vector<PlannedOutput>>(const TensorSpec&)> plan_tensor);

}  // namespace refit
