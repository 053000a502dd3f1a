// Finds the native tensor that an HF tensor of a family comes of, by its name: undoes renames, then rules. A name that
// is found makes the HF name again.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/adapters/family_binding.h"
#include "common/adapters/name_inverse.h"
#include "refit/tensor_spec.h"

namespace refit {

// Where an HF tensor comes from.
struct HfOrigin {
  std::string native;               // name
  const BoundRule* rule = nullptr;  // null: it passes
  size_t output = 0;                // of the rule
  std::optional<int64_t> expert;
};

class FamilyInverse {
 public:
  // Refers to the family. INVALID_ARGUMENT, naming the line, for a rule that cannot be undone.
  static absl::StatusOr<FamilyInverse> Make(const BoundFamily& family);

  // INVALID_ARGUMENT, naming the tensor, if no native name gives such a name, and for a part of an expert that no rule
  // makes.
  absl::StatusOr<HfOrigin> OriginOf(const TensorSpec& hf) const;

 private:
  struct Output {
    const BoundRule* rule;
    size_t index;
    NameInverse inverse;
  };

  explicit FamilyInverse(const BoundFamily& family) : family_(&family) {}
  // What the name may have been before the renames, the likeliest first.
  std::vector<std::string> BeforeRenames(const std::string& hf) const;
  std::optional<std::string> HfNameOf(const Output& output, const NameInverse::Found& found, size_t hf_rank) const;
  bool LooksLikeAnExpert(absl::string_view name) const;

  const BoundFamily* family_;
  std::vector<NameInverse> renames_;               // as those of the family
  std::vector<Output> outputs_;                    // of all rules
  std::shared_ptr<const PythonRegex> an_experts_;  // null: the family has no experts
};

// Dimensions of the native tensor of which the output has `hf_rank`; nullopt if that does not say.
std::optional<size_t> NativeRank(const FamilyRule& rule, const OutputRule& output, size_t hf_rank);

}  // namespace refit
