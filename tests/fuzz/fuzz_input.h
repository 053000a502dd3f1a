// Reads values from a fuzzer's bytes. Past their end all values are zero and empty.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>

namespace refit {

class FuzzInput {
 public:
  FuzzInput(const uint8_t* data, size_t size) : data_(data), size_(size) {}

  bool empty() const { return size_ == 0; }

  template <typename T>
  T Integer() {
    static_assert(std::is_integral_v<T>);
    T value = 0;
    const std::string bytes = Bytes(sizeof(T));
    std::memcpy(&value, bytes.data(), bytes.size());
    return value;
  }
  uint8_t Byte() { return Integer<uint8_t>(); }
  // 0 <= value < bound.
  uint64_t Below(uint64_t bound) { return Byte() % bound; }
  bool Bool() { return (Byte() & 1) != 0; }

  // The next `count` bytes, or the rest.
  std::string Bytes(size_t count) {
    const size_t taken = std::min(count, size_);
    std::string bytes(reinterpret_cast<const char*>(data_), taken);
    data_ += taken;
    size_ -= taken;
    return bytes;
  }
  // A string whose length is in the byte before it.
  std::string Text() { return Bytes(Byte()); }
  std::string Rest() { return Bytes(size_); }

 private:
  const uint8_t* data_;
  size_t size_;
};

}  // namespace refit
