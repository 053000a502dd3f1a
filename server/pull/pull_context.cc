#include "server/pull/pull_context.h"

#include <utility>

#include "absl/status/statusor.h"

namespace refit {

std::shared_ptr<const Buffer> MakeSharedSample() {
  constexpr size_t kLeastShared = 2 << 20;
  absl::StatusOr<std::shared_ptr<Buffer>> sample = Buffer::Allocate(kLeastShared, Backing::kShared);
  return sample.ok() && (*sample)->shared_fd() >= 0 ? *std::move(sample) : nullptr;
}

}  // namespace refit
