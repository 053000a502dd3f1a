// Memory that a baseline sends from or receives into: touched, with huge pages where the system gives them.
#pragma once

#include <algorithm>
#include <cstring>
#include <memory>

#include "refit/buffer.h"

namespace refit::baselines {

inline absl::StatusOr<std::shared_ptr<Buffer>> MakeWarmRegion(uint64_t bytes) {
  absl::StatusOr<std::shared_ptr<Buffer>> region = Buffer::Allocate(bytes);
  if (region.ok()) std::memset((*region)->data(), 0x5a, bytes);
  return region;
}

}  // namespace refit::baselines
