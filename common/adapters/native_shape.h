// The shape of a native tensor, from those of the HF tensors that a rule makes of it.
#pragma once

#include <cstdint>
#include <optional>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/adapters/family.h"
#include "refit/tensor_spec.h"

namespace refit {

// An HF tensor, and which of the rule's outputs it is.
struct RulePiece {
  const TensorSpec* hf = nullptr;
  size_t output = 0;
  std::optional<int64_t> expert;
};

// Looks at the first piece of each output only: the rule itself tells whether all fit. What is missing is taken to be
// like its neighbours, so that the rule can name it. `experts`: how many there are, if that was said. INVALID_ARGUMENT
// if the shapes do not tell.
absl::StatusOr<Shape> NativeShape(const FamilyRule& rule, absl::Span<const RulePiece> pieces,
                                  std::optional<int64_t> experts);

}  // namespace refit
