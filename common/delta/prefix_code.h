// Prefix codes of the symbols in a delta payload, made from how often each occurs (Huffman), and sent as lengths.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/delta/delta_format.h"

namespace refit {

using SymbolCounts = std::array<uint32_t, kSymbols>;

// Bits of each symbol's code, at most kMaxCodeLength; 0: the symbol does not occur. One that occurs alone has length 1
// here, and no bits in the stream.
using CodeLengths = std::array<uint8_t, kSymbols>;

// The fewest and the most bits that a number takes, plain bits included.
struct NumberBits {
  int least;
  int most;
};
NumberBits NumberBitsOf(const CodeLengths& lengths);

struct Codeword {
  uint16_t bits = 0;
  uint8_t length = 0;
};
struct Codebook {
  std::array<Codeword, kSymbols> words{};
  int most_bits;  // of a number
};

// What the first kMaxCodeLength bits at hand mean.
struct DecodedSymbol {
  uint8_t all_bits;  // code and plain bits
  uint8_t code_bits;
  uint8_t symbol;
  uint32_t offset;  // these bits read as a number, plus this, are the one that is meant, modulo 2^32
};
struct DecodingTable {
  std::array<DecodedSymbol, 1 << kMaxCodeLength> symbols;
  int most_bits;  // of a number
};

// Of at least one symbol that occurs.
CodeLengths LengthsFor(const SymbolCounts& counts);

// Canonical: shorter codes come first, then lower symbols.
Codebook CodebookOf(const CodeLengths& lengths);
void FillDecodingTable(const CodeLengths& lengths, DecodingTable& table);

// Bits of a stream of these numbers.
uint64_t StreamBits(const SymbolCounts& counts, const CodeLengths& lengths);

void AppendLengths(const CodeLengths& lengths, std::vector<std::byte>& out);
// Takes them from the beginning of `bytes`. Checks that they are those of a complete code of the symbols up to `last`.
absl::StatusOr<CodeLengths> TakeLengths(absl::Span<const std::byte>& bytes, int last);

}  // namespace refit
