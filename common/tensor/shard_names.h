// Finds shards by the names of their tensors.
#pragma once

#include <cstddef>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "refit/box.h"

namespace refit {

// The shards must outlive it and must not change. Not thread-safe.
class ShardNames {
 public:
  explicit ShardNames(const std::vector<TensorPart>& shards) : shards_(shards) {}

  // NOT_FOUND: "tensor x was not declared".
  absl::StatusOr<size_t> IndexOf(absl::string_view name);

 private:
  const std::vector<TensorPart>& shards_;
  absl::flat_hash_map<absl::string_view, size_t> indices_;  // built on first use
};

}  // namespace refit
