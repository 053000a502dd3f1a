// Copies a part's bytes out of those of the whole tensor.
#pragma once

#include <cstddef>
#include <vector>

#include "refit/box.h"

namespace refit {

inline std::vector<std::byte> Gather(const TensorPart& part, const std::vector<std::byte>& whole) {
  const auto size = static_cast<std::ptrdiff_t>(ElementSize(part.tensor.dtype));
  std::vector<std::byte> bytes;
  BoxRuns(part.tensor.shape, part.box).ForEach(0, ElementCount(part.box), [&](int64_t place, int64_t count) {
    bytes.insert(bytes.end(), whole.begin() + place * size, whole.begin() + (place + count) * size);
  });
  return bytes;
}

}  // namespace refit
