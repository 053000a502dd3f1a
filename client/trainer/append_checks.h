// What a trainer may append to a push, and when it may commit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "refit/box.h"

namespace refit {

// Errors as VersionPush documents them. `context` begins each: "push of default/3 to host:port". Must outlive this.
class AppendChecks {
 public:
  AppendChecks(const std::string& context, const std::vector<TensorPart>& shards)
      : context_(context), shards_(shards) {}

  // `missing` is asked how many bytes a shard lacks.
  absl::Status Append(size_t index, absl::Span<const std::byte> bytes,
                      absl::FunctionRef<uint64_t(size_t index)> missing) const;
  absl::Status Push(size_t index, absl::Span<const std::byte> bytes) const;
  absl::Status Commit(absl::FunctionRef<uint64_t(size_t index)> missing,
                      absl::FunctionRef<bool(size_t index)> unneeded) const;

 private:
  absl::Status Invalid(const TensorPart& shard, absl::string_view what) const;

  const std::string& context_;
  const std::vector<TensorPart>& shards_;
};

}  // namespace refit
