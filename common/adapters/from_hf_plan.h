// Plans `from_hf` for any family: which native tensors the HF tensors of a checkpoint come of.
//
// The native tensors are guessed from names and shapes. Then the family's own plan converts them, on paper, and must
// make exactly the tensors that were given.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/adapters/family.h"
#include "common/adapters/plan.h"
#include "refit/tensor_spec.h"

namespace refit {

struct FromHfPlan {
  VersionPlan forward;          // of the native tensors, in the order in which their first HF tensors come
  std::vector<size_t> hf;       // for each of forward.outputs: the HF tensor that it is
  std::vector<DType> dtypes;    // in which the native tensors are written; forward has those of the HF tensors
  bool changes_nothing = true;  // whether all tensors pass under their own names
  std::optional<int64_t> counted_experts;  // where names alone tell how many there are
};

// `experts_dtype`: what experts' tensors are cast to; unset: they keep their dtype. INVALID_ARGUMENT, naming the
// tensor, for tensors that the family does not make or that lack others, for different dtypes within a native tensor,
// and for a family that cannot be undone. Errors as FindFamily and PlanVersion, too.
absl::StatusOr<FromHfPlan> PlanFromHf(absl::string_view adapter, const AdapterOptions& options,
                                      absl::Span<const TensorSpec> hf, std::optional<DType> experts_dtype);

// The same for a family that nobody needs to know.
absl::StatusOr<FromHfPlan> PlanFromHf(const std::shared_ptr<const Family>& family, const AdapterOptions& options,
                                      absl::Span<const TensorSpec> hf, std::optional<DType> experts_dtype);

}  // namespace refit
