// A small model of which each version changes a few elements.
#pragma once

#include <cstdint>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "tests/support/push.h"

namespace refit {

// "weight" and "bias" (BF16) change, "frozen" (F32) does not.
class SteppedModel {
 public:
  using Bytes = std::vector<std::byte>;

  SteppedModel() {
    for (const TensorSpec& spec : specs) values[spec.name] = Pattern(spec, 7);
  }

  static Bytes Pattern(const TensorSpec& spec, uint32_t seed) {
    Bytes bytes(spec.ByteSize());
    for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>((i + seed) * 2654435761U >> 13);
    return bytes;
  }

  // Moves every nth element by one step.
  void Step(size_t nth = 100) {
    for (const char* name : {"weight", "bias"}) {
      Bytes& bytes = values.at(name);
      for (size_t at = 0; at + 2 <= bytes.size(); at += 2 * nth) {
        uint16_t bits = 0;
        std::memcpy(&bits, &bytes[at], 2);
        ++bits;
        std::memcpy(&bytes[at], &bits, 2);
      }
    }
  }

  absl::Status Push(const ChannelOptions& channel, uint64_t version) {
    for (const TensorSpec& spec : specs) values.try_emplace(spec.name, Pattern(spec, 7));
    return PushIdentity(channel, version, specs, [&](size_t i) { return values.at(specs[i].name); }).status();
  }

  uint64_t bytes() const {
    uint64_t sum = 0;
    for (const TensorSpec& spec : specs) sum += spec.ByteSize();
    return sum;
  }

  std::vector<TensorSpec> specs = {
      {"weight", DType::kBF16, {256, 640}}, {"frozen", DType::kF32, {200, 200}}, {"bias", DType::kBF16, {640}}};
  std::map<std::string, Bytes> values;
};

}  // namespace refit
