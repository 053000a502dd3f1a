// Applies the deltas of a pull to its base.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/delta/delta_decoder.h"
#include "refit/box.h"
#include "refit/pull.h"

namespace refit {

// For one thread at a time. The base must outlive it.
class DeltaReceiver {
 public:
  explicit DeltaReceiver(const PullBase& base);

  // What the bytes of a part from `offset` on have become, written to `result`.
  struct Applied {
    uint64_t digest = 0;   // of the result
    uint64_t changed = 0;  // elements
  };
  // An empty payload: nothing has changed. FAILED_PRECONDITION if the base has no such tensor; INVALID_ARGUMENT for a
  // malformed payload, and for a base in a mapped file that was truncated. A wrong base gives a wrong result.
  absl::StatusOr<Applied> Apply(const TensorPart& part, uint64_t offset, absl::Span<const std::byte> payload,
                                absl::Span<std::byte> result);

 private:
  absl::StatusOr<absl::Span<const std::byte>> BytesOf(const TensorPart& part) const;

  std::unordered_map<std::string, const PullBase::Tensor*> tensors_;
  DeltaDecoder decoder_;
};

}  // namespace refit
