// Bits in bytes, the most significant first.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "absl/base/attributes.h"
#include "absl/types/span.h"

namespace refit {

static_assert(std::endian::native == std::endian::little);

// Writes eight bytes at a time: beyond the end of the stream there is room for as many.
class BitWriter {
 public:
  explicit BitWriter(std::byte* out) : out_(out) {}

  // At most 56 bits; those above are zero.
  void Write(uint64_t bits, int count) {
    held_ += count;
    buffer_ |= bits << 1 << (63 - held_);
    const uint64_t big_endian = __builtin_bswap64(buffer_);
    std::memcpy(out_, &big_endian, sizeof(big_endian));
    out_ += held_ >> 3;
    buffer_ <<= held_ & ~7;
    held_ &= 7;
  }

 private:
  std::byte* out_;
  uint64_t buffer_ = 0;  // the highest bits are next
  int held_ = 0;         // fewer than 8, between two writes
};

// Reads zeros beyond the end.
class BitReader {
 public:
  explicit BitReader(absl::Span<const std::byte> bytes) : bytes_(bytes.data()), size_(bytes.size()) {}

  // Whether RefillWord may be called: not near the end.
  bool has_word() const { return at_ + 8 <= size_; }

  // From then on 56 bits are at hand.
  ABSL_ATTRIBUTE_ALWAYS_INLINE void RefillWord() {
    uint64_t next;
    std::memcpy(&next, bytes_ + at_, sizeof(next));
    buffer_ |= __builtin_bswap64(next) >> held_;
    at_ += (63 - held_) >> 3;
    held_ |= 56;
  }
  void Refill() {
    if (has_word()) return RefillWord();
    for (; held_ < 56; held_ += 8, ++at_) {
      const uint64_t next = at_ < size_ ? std::to_integer<uint64_t>(bytes_[at_]) : 0;
      buffer_ |= next << (56 - held_);
    }
  }

  // The next bits from the top of a word.
  uint64_t buffer() const { return buffer_; }
  void Skip(int count) {
    buffer_ <<= count;
    held_ -= count;
  }

  uint64_t bits_read() const { return 8 * at_ - static_cast<uint64_t>(held_); }

 private:
  const std::byte* bytes_;
  uint64_t size_;
  uint64_t at_ = 0;
  uint64_t buffer_ = 0;
  int held_ = 0;
};

}  // namespace refit
