// Reads and writes values at addresses of any alignment.
#pragma once

#include <cstddef>
#include <cstring>

#include "absl/base/attributes.h"

namespace refit {

// Always inline: kernels call them in loops that are compiled for several instruction sets.
template <typename T>
ABSL_ATTRIBUTE_ALWAYS_INLINE inline T Load(const std::byte* src) {
  T value;
  std::memcpy(&value, src, sizeof(T));
  return value;
}

template <typename T>
ABSL_ATTRIBUTE_ALWAYS_INLINE inline void Store(std::byte* dst, T value) {
  std::memcpy(dst, &value, sizeof(T));
}

}  // namespace refit
