// A tensor's name, element type and shape.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "refit/dtype.h"
#include "refit/shape.h"

namespace refit {

// Longest tensor name that is accepted by default.
inline constexpr size_t kMaxNameBytes = 1024;

struct TensorSpec {
  std::string name;
  DType dtype = DType::kF32;
  Shape shape;

  // Size in bytes. The spec must be valid (see Validate).
  uint64_t ByteSize() const;

  // "model.norm.weight BF16 [2816]", for messages.
  std::string ToString() const;

  friend bool operator==(const TensorSpec& a, const TensorSpec& b) {
    return a.name == b.name && a.dtype == b.dtype && a.shape == b.shape;
  }
  friend bool operator!=(const TensorSpec& a, const TensorSpec& b) { return !(a == b); }
};

// INVALID_ARGUMENT, naming the tensor, if the name is empty, longer than max_name_bytes, not valid UTF-8, or has
// control characters, or if ByteCount rejects the shape.
absl::Status Validate(const TensorSpec& spec, size_t max_name_bytes = kMaxNameBytes);

// Makes `name` safe for a message or a terminal: escapes control and invalid bytes, and cuts it to 200 bytes.
std::string Printable(absl::string_view name);

}  // namespace refit
