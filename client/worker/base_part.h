// The part of a base that one of several connections names.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "refit/box.h"
#include "refit/pull.h"

namespace refit {

// Immutable.
class BaseParts {
 public:
  // `base` may be null. `chunk_bytes`: of the version that is pulled.
  BaseParts(std::shared_ptr<const PullBase> base, uint64_t chunk_bytes);

  // What the base has of these parts, and its digest. Null if it lacks one of them.
  std::shared_ptr<const PullBase> Of(const std::vector<TensorPart>& parts) const;

 private:
  const std::shared_ptr<const PullBase> base_;
  const uint64_t chunk_bytes_;
  std::unordered_map<std::string, size_t> places_;  // in the base, by name
};

}  // namespace refit
