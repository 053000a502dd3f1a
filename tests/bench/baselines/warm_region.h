// Memory that a baseline sends from or receives into. It is touched, with huge pages if the system provides them.
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
