#include "common/tensor/shard_names.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace refit {

absl::StatusOr<size_t> ShardNames::IndexOf(absl::string_view name) {
  if (indices_.empty()) {
    indices_.reserve(shards_.size());
    for (size_t i = 0; i < shards_.size(); ++i) indices_.emplace(shards_[i].tensor.name, i);
  }
  const auto found = indices_.find(name);
  if (found != indices_.end()) return found->second;
  return absl::NotFoundError(absl::StrCat("tensor ", Printable(name), " was not declared"));
}

}  // namespace refit
