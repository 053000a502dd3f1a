// A family's rules, compiled for the values that its options have.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/adapters/family.h"
#include "common/adapters/name_rewriter.h"
#include "common/adapters/plan.h"

namespace refit {

struct BoundOutput {
  const OutputRule* rule;
  std::string to;
  std::optional<NameFinder> parts;
  std::string native;  // as OutputRule::native
};

struct BoundRule {
  const FamilyRule* rule;
  std::vector<NameFinder> when;
  std::vector<BoundOutput> outputs;
};

struct BoundRename {
  const RenameRule* rule;
  NameFinder find;
  std::string to;
  std::shared_ptr<const PythonRegex> back;  // null: all names
};

// The rules that hold with these options. Refers to the family.
struct BoundFamily {
  std::vector<BoundRule> rules;
  std::vector<BoundRename> renames;
  std::optional<int64_t> experts;
  std::optional<int64_t> expert_width;
  bool drops_model_prefix = false;  // {kModelPrefixOption, "false"} was asked for
};

// An option of families whose experts' HF names may lack the model's prefix.
inline constexpr char kModelPrefixOption[] = "uses_model_prefix";

// INVALID_ARGUMENT, listing what there is, for an option or a value that the family does not have, and for rules that
// are malformed.
absl::StatusOr<BoundFamily> Bind(const Family& family, const AdapterOptions& options);

}  // namespace refit
