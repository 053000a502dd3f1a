// Rules that split tensors into parts, for a mesh of trainer ranks or a parallel group of workers.
#pragma once

#include <cstdint>
#include <string>

#include "refit/box.h"

namespace refit {

// Part `part` of `parts` of one dimension, for every tensor that the rule applies to.
struct LayoutRule {
  // Which tensors: all, those that hold experts (their dimension 0 counts experts; see PlannedOutput), or all others.
  enum class Scope { kAny, kExperts, kOrdinary };

  Scope scope = Scope::kAny;
  // RE2 pattern that is searched in the name. Empty: every tensor of the scope that has the dimension.
  std::string pattern;
  uint32_t dimension = 0;
  uint64_t part = 0;
  uint64_t parts = 1;
  Split split = Split::kBalanced;
  // Rules on one tensor nest, as DTensor placements do. But of patterns that are each for tensors of their own, one is
  // meant for a tensor: two exclusive rules on the same one are INVALID_ARGUMENT.
  bool exclusive = false;

  // "experts, dimension 0, part 1 of 8", for messages.
  std::string ToString() const;
};

}  // namespace refit
