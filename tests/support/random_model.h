// Models of random shapes and types, and random changes of their values.
#pragma once

#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "absl/strings/str_cat.h"
#include "refit/dtype.h"
#include "refit/tensor_spec.h"

namespace refit {

class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}
  int64_t Between(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(engine_); }
  bool OneIn(int64_t n) { return Between(1, n) == 1; }
  template <typename T>
  const T& Of(const std::vector<T>& choices) {
    return choices[Between(0, static_cast<int64_t>(choices.size()) - 1)];
  }
  uint64_t Bits() { return engine_(); }

 private:
  std::mt19937_64 engine_;
};

inline const std::vector<DType>& DTypes() {
  static const std::vector<DType> dtypes = {DType::kBF16, DType::kF16, DType::kF32,    DType::kF64,
                                            DType::kI64,  DType::kU8,  DType::kF8E4M3, DType::kBool};
  return dtypes;
}

inline Shape RandomShape(Random& random) {
  switch (random.Between(0, 9)) {
    case 0:
      return {};
    case 1:
      return {random.Between(0, 3), 0, 5};
    case 2:
      return {random.Between(1, 20)};
    default:
      return {random.Between(1, 90), random.Between(1, 90)};
  }
}

inline std::vector<TensorSpec> RandomSpecs(Random& random) {
  std::vector<TensorSpec> specs = {{"some", DType::kF32, {3}}};  // an empty version would be refused
  for (int64_t i = random.Between(1, 6); i > 0; --i) {
    specs.push_back({absl::StrCat("t", i), random.Of(DTypes()), RandomShape(random)});
  }
  return specs;
}

// The bits of a NaN, a zero of either sign, an infinity, or of anything, as wide as an element.
inline uint64_t OddBits(Random& random, size_t size) {
  const uint64_t sign = uint64_t{1} << (8 * size - 1);
  switch (random.Between(0, 3)) {
    case 0:
      return sign;
    case 1:
      return 0;
    case 2:
      return ~uint64_t{0} >> random.Between(0, 3);
    default:
      return random.Bits();
  }
}

inline void ChangeAtRandom(Random& random, const TensorSpec& spec, std::vector<std::byte>& bytes) {
  const size_t size = ElementSize(spec.dtype);
  const auto elements = static_cast<int64_t>(bytes.size() / size);
  if (elements == 0) return;
  const std::vector<int64_t> densities = {0, 1, elements / 200, elements / 20, elements / 3, elements};
  const bool small_steps = !random.OneIn(3);
  for (int64_t changes = random.Of(densities); changes > 0; --changes) {
    std::byte* element = &bytes[random.Between(0, elements - 1) * size];
    uint64_t bits = 0;
    std::memcpy(&bits, element, size);
    bits = small_steps ? bits + static_cast<uint64_t>(random.Between(-2, 2)) : OddBits(random, size);
    std::memcpy(element, &bits, size);
  }
}

}  // namespace refit
