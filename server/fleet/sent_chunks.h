// What was sent to workers, and in which form.
#pragma once

#include <cstdint>

namespace refit {

struct SentChunk {
  uint64_t tensor_bytes = 0;
  uint64_t wire_bytes = 0;  // payload
  enum class Form { kRaw, kDelta, kUnchanged } form = Form::kRaw;
  uint64_t changed_elements = 0;
};

// Sums over chunks.
struct SentChunks {
  uint64_t tensor_bytes = 0;
  uint64_t wire_bytes = 0;
  uint64_t raw = 0;
  uint64_t delta = 0;
  uint64_t unchanged = 0;
  uint64_t changed_elements = 0;

  uint64_t chunks() const { return raw + delta + unchanged; }

  void Add(const SentChunk& chunk) {
    tensor_bytes += chunk.tensor_bytes;
    wire_bytes += chunk.wire_bytes;
    changed_elements += chunk.changed_elements;
    switch (chunk.form) {
      case SentChunk::Form::kRaw:
        ++raw;
        break;
      case SentChunk::Form::kDelta:
        ++delta;
        break;
      case SentChunk::Form::kUnchanged:
        ++unchanged;
        break;
    }
  }
};

}  // namespace refit
