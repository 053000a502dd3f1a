// At step 0, a value depends only on seed, tensor name and the index of its 8-byte word. What a step adds to it depends
// only on these, the step and the fraction that changes.
#include "client/native/synthetic_values.h"

#include <array>
#include <cmath>
#include <cstring>
#include <string>

#include "client/native/synthetic_moves.h"

namespace refit {
namespace {

// An element is (random word & random) | fixed. For floating point, this leaves the sign, the mantissa, and exponents
// of magnitudes from 2^-7 (F8_E4M3: 0) to below 1.
struct ElementBits {
  uint64_t random;
  uint64_t fixed;
};

constexpr uint64_t EveryByte(uint64_t byte) { return byte * 0x0101010101010101; }
constexpr uint64_t EveryTwo(uint64_t two) { return two * 0x0001000100010001; }
constexpr uint64_t EveryFour(uint64_t four) { return four * 0x0000000100000001; }

ElementBits BitsOf(DType dtype) {
  switch (dtype) {
    case DType::kF64:
      return {0x806fffffffffffff, 0x3f80000000000000};
    case DType::kF32:
      return {EveryFour(0x837fffff), EveryFour(0x3c000000)};
    case DType::kF16:
      return {EveryTwo(0x9bff), EveryTwo(0x2000)};
    case DType::kBF16:
      return {EveryTwo(0x837f), EveryTwo(0x3c00)};
    case DType::kF8E4M3:
      return {EveryByte(0xb7), 0};
    case DType::kF8E5M2:
      return {EveryByte(0x9b), EveryByte(0x20)};
    case DType::kBool:
      return {EveryByte(0x01), 0};
    default:
      return {~uint64_t{0}, 0};
  }
}

constexpr uint64_t kGoldenRatio = 0x9e3779b97f4a7c15;

// The finaliser of SplitMix64.
constexpr uint64_t Mix(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

// FNV-1a.
uint64_t HashName(const std::string& name) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return hash;
}

uint64_t KeyOf(uint64_t seed, const TensorSpec& spec) { return Mix(seed + kGoldenRatio) ^ HashName(spec.name); }

// The values of step 0.
class Words {
 public:
  Words(uint64_t seed, const TensorSpec& spec) : key_(KeyOf(seed, spec)), bits_(BitsOf(spec.dtype)) {}

  // Fills `out` with bytes [offset, offset + out.size()) of the tensor.
  void Fill(uint64_t offset, absl::Span<std::byte> out) const {
    if (const uint64_t skip = offset % kBytes; skip != 0) {
      const auto head = out.subspan(0, kBytes - skip);
      CopyPart(offset / kBytes, skip, head);
      offset += head.size();
      out.remove_prefix(head.size());
    }
    uint64_t index = offset / kBytes;
    const size_t words = out.size() / kBytes;
    for (size_t i = 0; i < words; ++i, ++index) {
      const uint64_t word = At(index);
      std::memcpy(out.data() + i * kBytes, &word, kBytes);
    }
    CopyPart(index, 0, out.subspan(words * kBytes));
  }

 private:
  static constexpr size_t kBytes = sizeof(uint64_t);

  uint64_t At(uint64_t index) const { return (Mix(key_ + index * kGoldenRatio) & bits_.random) | bits_.fixed; }

  void CopyPart(uint64_t index, size_t skip, absl::Span<std::byte> out) const {
    const uint64_t word = At(index);
    if (!out.empty()) std::memcpy(out.data(), reinterpret_cast<const std::byte*>(&word) + skip, out.size());
  }

  uint64_t key_;
  ElementBits bits_;
};

// Adds moves to the bit patterns of elements. A larger pattern is a larger magnitude, whatever the sign.
template <typename Bits>
void Move(const BlockOfMoves& moves, std::byte* elements) {
  for (size_t i = 0; i < moves.size(); ++i) {
    Bits bits;
    std::memcpy(&bits, elements + i * sizeof(Bits), sizeof(Bits));
    bits = static_cast<Bits>(bits + static_cast<Bits>(moves[i]));
    std::memcpy(elements + i * sizeof(Bits), &bits, sizeof(Bits));
  }
}

// The values of a floating-point tensor after some steps. They are made in blocks of elements.
class MovedWords {
 public:
  MovedWords(const SyntheticOptions& options, const TensorSpec& spec)
      : words_(options.seed, spec),
        key_(Mix(KeyOf(options.seed, spec) ^ kGoldenRatio)),
        steps_(options.step),
        fraction_(static_cast<uint32_t>(std::llround(std::ldexp(options.change, kFractionBits)))),
        element_size_(ElementSize(spec.dtype)) {}

  // As Words::Fill.
  void Fill(uint64_t offset, absl::Span<std::byte> out) const {
    const uint64_t block_bytes = kMovesInBlock * element_size_;
    std::array<std::byte, kMovesInBlock * sizeof(uint64_t)> memory;
    const auto block = absl::MakeSpan(memory).first(block_bytes);
    while (!out.empty()) {
      FillBlock(offset / block_bytes, block);
      const auto part = block.subspan(offset % block_bytes, out.size());
      std::memcpy(out.data(), part.data(), part.size());
      offset += part.size();
      out.remove_prefix(part.size());
    }
  }

 private:
  void FillBlock(uint64_t index, absl::Span<std::byte> block) const {
    words_.Fill(index * block.size(), block);
    BlockOfMoves moves = {};
    for (uint32_t step = 1; step <= steps_; ++step) {
      AddMoves(Mix(Mix(key_ + step * kGoldenRatio) + index * kGoldenRatio), fraction_, moves);
    }
    switch (element_size_) {
      case sizeof(uint16_t):
        return Move<uint16_t>(moves, block.data());
      case sizeof(uint32_t):
        return Move<uint32_t>(moves, block.data());
      default:
        return Move<uint64_t>(moves, block.data());
    }
  }

  Words words_;
  uint64_t key_;
  uint32_t steps_;
  uint32_t fraction_;
  uint64_t element_size_;
};

}  // namespace

void FillSynthetic(const SyntheticOptions& options, const TensorSpec& spec, uint64_t offset,
                   absl::Span<std::byte> out) {
  if (options.step > 0 && IsCastable(spec.dtype)) {
    MovedWords(options, spec).Fill(offset, out);
  } else {
    Words(options.seed, spec).Fill(offset, out);
  }
}

}  // namespace refit
