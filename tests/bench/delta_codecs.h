// Ways to encode what has changed in a range of BF16, as the benchmark compares them: ours, and others' as their
// descriptions have it.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "absl/types/span.h"

namespace refit {

using Payload = std::vector<std::byte>;

class DeltaCodec {
 public:
  virtual ~DeltaCodec() = default;

  // The payload; what came before in it is gone. Empty: this one would send the range itself.
  virtual void Encode(absl::Span<const std::byte> base, absl::Span<const std::byte> now, Payload& payload) = 0;
  // Turns the base into what it was encoded from.
  virtual void ApplyInPlace(absl::Span<const std::byte> payload, absl::Span<std::byte> range) = 0;
};

struct NamedCodec {
  std::string name;
  std::unique_ptr<DeltaCodec> codec;
};

// Ours is the first. Others' are without those that need zstd, if this was built without it.
std::vector<NamedCodec> DeltaCodecs();

}  // namespace refit
