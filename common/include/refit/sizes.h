// Default sizes that both ends of a connection use, in bytes.
#pragma once

#include <cstddef>
#include <cstdint>

namespace refit {

// Largest message that is sent or accepted by default, whatever the tensor's size.
inline constexpr int kMaxMessageBytes = 4 << 20;

// Size of a chunk. gRPC is fastest with chunks of this size.
inline constexpr uint64_t kDefaultChunkBytes = 2 << 20;

// Longest regular expression.
inline constexpr size_t kMaxRegexBytes = 4096;

}  // namespace refit
