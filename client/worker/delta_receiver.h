// Applies the deltas of a pull to its base.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "client/worker/range_delta.h"
#include "common/wire/digest.h"
#include "refit/box.h"
#include "refit/pull.h"

namespace refit {

// For one thread at a time. The base must outlive it.
class DeltaReceiver {
 public:
  explicit DeltaReceiver(const PullBase& base);

  // Digests what the bytes of a part from `offset` on have become, as many as the chunk says. Writes them to `result`,
  // unless that is null. Returns how many elements have changed. FAILED_PRECONDITION if the base has no such tensor;
  // INVALID_ARGUMENT for a malformed payload, and for a base in a mapped file that was truncated. A wrong base gives a
  // wrong result.
  absl::StatusOr<uint64_t> Apply(const TensorPart& part, const PulledChunk& chunk, std::byte* result,
                                 TensorDigester& digester);

 private:
  absl::StatusOr<absl::Span<const std::byte>> BytesOf(const TensorPart& part) const;

  std::unordered_map<std::string, const PullBase::Tensor*> tensors_;
  RangeDelta delta_;
};

}  // namespace refit
