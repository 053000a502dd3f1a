#include "server/pull/pull_context.h"

#include <utility>

#include "absl/status/statusor.h"
#include "refit/buffer.h"

namespace refit {

std::optional<LentSegment> MakeSharedSample(DescriptorTable& descriptors) {
  constexpr size_t kLeastShared = 2 << 20;
  absl::StatusOr<std::shared_ptr<Buffer>> sample = Buffer::Allocate(kLeastShared, Backing::kShared);
  if (!sample.ok() || (*sample)->shared_fd() < 0) return std::nullopt;
  return LentSegment(descriptors, *std::move(sample));
}

}  // namespace refit
