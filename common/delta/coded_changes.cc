// Loops over bits, which newer processors have instructions for: compiled once for each instruction set as well.
#include "common/delta/coded_changes.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "common/delta/bit_stream.h"
#include "common/delta/delta_format.h"

#define HWY_DISABLED_TARGETS (HWY_SVE | HWY_SVE2 | HWY_RVV | HWY_SSSE3 | HWY_AVX3_DL | HWY_AVX3)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "common/delta/coded_changes.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace refit {
namespace HWY_NAMESPACE {
namespace {

// The changes' numbers, in order: the elements between each and the one before.
class Gaps {
 public:
  explicit Gaps(const Changes& changes) : positions_(changes.positions.data()) {}
  uint32_t operator()(size_t i) const { return i == 0 ? positions_[0] : positions_[i] - positions_[i - 1] - 1; }

 private:
  const uint32_t* positions_;
};
// Or their folded differences.
template <typename T>
class Differences {
 public:
  explicit Differences(const Changes& changes) : numbers_(changes.numbers.data()) {}
  T operator()(size_t i) const {
    T number;
    std::memcpy(&number, numbers_ + i * sizeof(T), sizeof(T));
    return number;
  }

 private:
  const std::byte* numbers_;
};

// Equal symbols often follow each other: several counters, so that one does not wait for the other.
template <typename Numbers>
void Count(const Numbers& numbers, size_t count, SymbolCounts& sums) {
  constexpr size_t kCounters = 4;
  SymbolCounts counts[kCounters] = {};
  const size_t whole = count - count % kCounters;
  for (size_t i = 0; i < whole; i += kCounters) {
#pragma GCC unroll 4
    for (size_t j = 0; j < kCounters; ++j) ++counts[j][SymbolOf(numbers(i + j))];
  }
  for (size_t i = whole; i < count; ++i) ++counts[0][SymbolOf(numbers(i))];
  for (int symbol = 0; symbol < kSymbols; ++symbol) {
    sums[symbol] = counts[0][symbol] + counts[1][symbol] + counts[2][symbol] + counts[3][symbol];
  }
}

void CountGapsTo(const Changes& changes, SymbolCounts& counts) { Count(Gaps(changes), changes.count, counts); }

template <typename T>
void CountNumbers(const Changes& changes, SymbolCounts& counts) {
  Count(Differences<T>(changes), changes.count, counts);
}

void CountDifferencesTo(const Changes& changes, size_t element_size, SymbolCounts& counts) {
  const auto count = element_size == 1   ? CountNumbers<uint8_t>
                     : element_size == 2 ? CountNumbers<uint16_t>
                     : element_size == 4 ? CountNumbers<uint32_t>
                                         : CountNumbers<uint64_t>;
  count(changes, counts);
}

// How many numbers of at most so many bits are written, or read, in one go.
int AtOnce(int most_bits) { return std::min(3, 56 / std::max(most_bits, 1)); }

// A number's bits, and how many they are.
struct Bits {
  uint64_t bits;
  int count;
};

inline Bits operator+(Bits high, Bits low) { return {high.bits << low.count | low.bits, high.count + low.count}; }

// Looks up the bits of the numbers that occur most.
class NumberCode {
 public:
  explicit NumberCode(const Codebook& book) : book_(book) {
    for (int symbol = 0; symbol < SymbolOf(kLookedUp); ++symbol) {
      const Codeword code = book.words[symbol];
      const int plain = PlainBitsOfSymbol(symbol);
      const uint32_t first = uint32_t{code.bits} << plain << 8 | static_cast<uint32_t>(code.length + plain);
      uint32_t* const entries = entries_ + (HighBitsOfSymbol(symbol) << plain);
      for (uint32_t i = 0; i < uint32_t{1} << plain; ++i) entries[i] = first + (i << 8);
    }
  }

  Bits operator()(uint64_t number) const {
    if (number < kLookedUp) return {entries_[number] >> 8, static_cast<int>(entries_[number] & 0xff)};
    const int plain = PlainBits(number);
    const Codeword code = book_.words[SymbolOf(number)];
    return {uint64_t{code.bits} << plain | (number & ((uint64_t{1} << plain) - 1)), code.length + plain};
  }

 private:
  static constexpr uint64_t kLookedUp = 1024;

  const Codebook& book_;
  uint32_t entries_[kLookedUp];  // bits, and their number in the lowest byte
};

// So many numbers at a time, whose bits are at most 56.
template <size_t kAtOnce, typename Numbers>
void Write(const Numbers& numbers, size_t count, const Codebook& book, BitWriter out) {
  const NumberCode code(book);
  const size_t whole = count - count % kAtOnce;
  for (size_t i = 0; i < whole; i += kAtOnce) {
    Bits bits = code(numbers(i));
#pragma GCC unroll 3
    for (size_t j = 1; j < kAtOnce; ++j) bits = bits + code(numbers(i + j));
    out.Write(bits.bits, bits.count);
  }
  for (size_t i = whole; i < count; ++i) {
    const Bits bits = code(numbers(i));
    out.Write(bits.bits, bits.count);
  }
}

template <typename Numbers>
void WriteInParts(const Numbers& numbers, size_t count, const Codebook& book, BitWriter out) {
  for (size_t i = 0; i < count; ++i) {
    const uint64_t number = numbers(i);
    const int plain = PlainBits(number);
    const Codeword code = book.words[SymbolOf(number)];
    out.Write(code.bits, code.length);
    const int low = plain / 2;
    const uint64_t plain_bits = number & ((uint64_t{1} << plain) - 1);
    out.Write(plain_bits >> low, plain - low);
    out.Write(plain_bits & ((uint64_t{1} << low) - 1), low);
  }
}

template <typename Numbers>
void WriteAll(const Numbers& numbers, size_t count, const Codebook& book, std::byte* out) {
  const BitWriter writer(out);
  switch (AtOnce(book.most_bits)) {
    case 0:
      return WriteInParts(numbers, count, book, writer);
    case 1:
      return Write<1>(numbers, count, book, writer);
    case 2:
      return Write<2>(numbers, count, book, writer);
    default:
      return Write<3>(numbers, count, book, writer);
  }
}

void WriteGapsTo(const Changes& changes, const Codebook& book, std::byte* out) {
  WriteAll(Gaps(changes), changes.count, book, out);
}

template <typename T>
void WriteNumbers(const Changes& changes, const Codebook& book, std::byte* out) {
  WriteAll(Differences<T>(changes), changes.count, book, out);
}

void WriteDifferencesTo(const Changes& changes, size_t element_size, const Codebook& book, std::byte* out) {
  const auto write = element_size == 1   ? WriteNumbers<uint8_t>
                     : element_size == 2 ? WriteNumbers<uint16_t>
                     : element_size == 4 ? WriteNumbers<uint32_t>
                                         : WriteNumbers<uint64_t>;
  write(changes, book, out);
}

inline uint64_t TopBits(uint64_t word, int count) { return word >> 1 >> (63 - count); }

// Its bits are at hand, and it is below 2^32.
inline uint32_t ReadNumber(const DecodingTable& table, BitReader& in) {
  const DecodedSymbol symbol = table.symbols[TopBits(in.buffer(), kMaxCodeLength)];
  const auto number = static_cast<uint32_t>(TopBits(in.buffer(), symbol.all_bits)) + symbol.offset;
  in.Skip(symbol.all_bits);
  return number;
}

// Of more bits than are at hand at a time.
inline uint64_t ReadLongNumber(const DecodingTable& table, BitReader& in) {
  const DecodedSymbol symbol = table.symbols[TopBits(in.buffer(), kMaxCodeLength)];
  in.Skip(symbol.code_bits);
  auto number = static_cast<uint64_t>(HighBitsOfSymbol(symbol.symbol));
  for (int left = PlainBitsOfSymbol(symbol.symbol); left > 0;) {
    in.Refill();
    const int count = std::min(left, 32);
    number = number << count | TopBits(in.buffer(), count);
    in.Skip(count);
    left -= count;
  }
  return number;
}

// Reads the two streams side by side, so that neither waits for the other.
template <typename T>
class Reader {
 public:
  Reader(const CodedChanges& coded, Changes& changes)
      : gap_table_(&coded.gap_table),
        difference_table_(&coded.difference_table),
        gaps_(coded.gaps),
        differences_(coded.differences),
        position_(changes.positions.data()),
        number_(changes.numbers.data()) {}

  void ReadAll(size_t count) {
    if (sizeof(T) == 8) return ReadInParts(count);
    switch (AtOnce(std::max(gap_table_->most_bits, difference_table_->most_bits))) {
      case 1:
        return ReadRest(count - ReadMost<1>(count));
      case 2:
        return ReadRest(count - ReadMost<2>(count));
      default:
        return ReadRest(count - ReadMost<3>(count));
    }
  }

  ReadChanges result() const {
    return {elements_, gaps_.bits_read(), differences_.bits_read(), largest_ > MaxFolded(sizeof(T))};
  }

 private:
  // So many at a time, until one of the streams is near its end. Returns how many it has read.
  template <size_t kAtOnce>
  size_t ReadMost(size_t count) {
    Reader reader = *this;  // nothing else sees it, so that it stays in registers
    size_t read = 0;
    for (; read + kAtOnce <= count && reader.gaps_.has_word() && reader.differences_.has_word(); read += kAtOnce) {
      reader.gaps_.RefillWord();
      reader.differences_.RefillWord();
#pragma GCC unroll 3
      for (size_t i = 0; i < kAtOnce; ++i) {
        reader.Add(ReadNumber(*gap_table_, reader.gaps_), ReadNumber(*difference_table_, reader.differences_));
      }
    }
    *this = reader;
    return read;
  }

  void ReadRest(size_t count) {
    for (size_t i = 0; i < count; ++i) {
      gaps_.Refill();
      differences_.Refill();
      Add(ReadNumber(*gap_table_, gaps_), ReadNumber(*difference_table_, differences_));
    }
  }

  void ReadInParts(size_t count) {
    for (size_t i = 0; i < count; ++i) {
      gaps_.Refill();
      differences_.Refill();
      Add(ReadNumber(*gap_table_, gaps_), ReadLongNumber(*difference_table_, differences_));
    }
  }

  void Add(uint64_t gap, uint64_t folded) {
    elements_ += gap;
    *position_++ = static_cast<uint32_t>(elements_++);
    largest_ = std::max(largest_, folded);
    const T difference = Unfold(static_cast<T>(folded));
    std::memcpy(number_, &difference, sizeof(T));
    number_ += sizeof(T);
  }

  const DecodingTable* gap_table_;
  const DecodingTable* difference_table_;
  BitReader gaps_;
  BitReader differences_;
  uint32_t* position_;
  std::byte* number_;
  uint64_t elements_ = 0;  // up to and with the last change
  uint64_t largest_ = 0;   // folded difference
};

template <typename T>
void ReadNumbers(const CodedChanges& coded, size_t count, Changes& changes, ReadChanges& result) {
  Reader<T> reader(coded, changes);
  reader.ReadAll(count);
  result = reader.result();
}

void ReadTo(const CodedChanges& coded, size_t count, size_t element_size, Changes& changes, ReadChanges& result) {
  const auto read = element_size == 1   ? ReadNumbers<uint8_t>
                    : element_size == 2 ? ReadNumbers<uint16_t>
                    : element_size == 4 ? ReadNumbers<uint32_t>
                                        : ReadNumbers<uint64_t>;
  read(coded, count, changes, result);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace refit
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace refit {
namespace {

HWY_EXPORT(CountGapsTo);
HWY_EXPORT(CountDifferencesTo);
HWY_EXPORT(WriteGapsTo);
HWY_EXPORT(WriteDifferencesTo);
HWY_EXPORT(ReadTo);

}  // namespace

SymbolCounts CountGaps(const Changes& changes) {
  SymbolCounts counts;
  HWY_DYNAMIC_DISPATCH(CountGapsTo)(changes, counts);
  return counts;
}

SymbolCounts CountDifferences(const Changes& changes, size_t element_size) {
  SymbolCounts counts;
  HWY_DYNAMIC_DISPATCH(CountDifferencesTo)(changes, element_size, counts);
  return counts;
}

void WriteGaps(const Changes& changes, const Codebook& book, std::byte* out) {
  HWY_DYNAMIC_DISPATCH(WriteGapsTo)(changes, book, out);
}

void WriteDifferences(const Changes& changes, size_t element_size, const Codebook& book, std::byte* out) {
  HWY_DYNAMIC_DISPATCH(WriteDifferencesTo)(changes, element_size, book, out);
}

ReadChanges Read(const CodedChanges& coded, size_t count, size_t element_size, Changes& changes) {
  changes.Reserve(count, element_size);
  changes.count = count;
  ReadChanges read;
  HWY_DYNAMIC_DISPATCH(ReadTo)(coded, count, element_size, changes, read);
  return read;
}

}  // namespace refit
#endif
