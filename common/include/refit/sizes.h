// Sizes that both ends of a connection keep to unless they are told otherwise. Bytes.
#pragma once

#include <cstddef>
#include <cstdint>

namespace refit {

// Largest message that is sent or accepted by default, whatever a tensor's size.
inline constexpr int kMaxMessageBytes = 4 << 20;

// Of a chunk: what moves fastest through gRPC.
inline constexpr uint64_t kDefaultChunkBytes = 2 << 20;

// Of a regular expression.
inline constexpr size_t kMaxRegexBytes = 4096;

}  // namespace refit
