// Native tensors that are all alike, to measure what a tensor costs, independent of its size.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "client/native/native_source.h"

namespace refit {

// `count` U8 tensors "t.000001"... of one dimension and `bytes` bytes each; or the experts of so many layers.
class UniformSource final : public NativeSource {
 public:
  // 128 experts in each layer, as Qwen3-30B-A3B has, but small ones: 384 tensors of a layer outside, of two inside.
  static std::shared_ptr<const UniformSource> ExpertLayers(uint64_t layers) {
    auto source = std::make_shared<UniformSource>(0, 0);
    for (uint64_t i = 0; i < layers; ++i) {
      const std::string prefix = absl::StrFormat("model.layers.%d.mlp.experts.", i);
      source->tensors_.push_back({prefix + "gate_and_up_projs", DType::kBF16, Shape{128, 64, 64}});
      source->tensors_.push_back({prefix + "down_projs", DType::kBF16, Shape{128, 32, 64}});
    }
    return source;
  }

  UniformSource(uint64_t count, uint64_t bytes) {
    tensors_.reserve(count);
    for (uint64_t i = 1; i <= count; ++i) {
      tensors_.push_back({absl::StrFormat("t.%06d", i), DType::kU8, Shape{static_cast<int64_t>(bytes)}});
    }
  }

  const std::vector<TensorSpec>& tensors() const override { return tensors_; }

  absl::Span<const std::byte> Read(size_t index, uint64_t offset, uint64_t size,
                                   absl::Span<std::byte> scratch) const override {
    for (uint64_t i = 0; i < size; ++i) scratch[i] = static_cast<std::byte>(index * 31 + offset + i);
    return scratch.first(size);
  }

  bool is_resident() const override { return false; }

 private:
  std::vector<TensorSpec> tensors_;
};

}  // namespace refit
