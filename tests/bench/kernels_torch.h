// Transposes and casts with LibTorch, for comparison.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "refit/dtype.h"

namespace refit {

// False in a build without LibTorch; then TorchTranspose does nothing.
bool HasTorch();

// target = source.transpose(-1, -2).contiguous().to(dtype), on one thread, into existing memory.
void TorchTranspose(DType from, DType to, const std::vector<int64_t>& shape, const std::byte* source,
                    std::byte* target);

}  // namespace refit
