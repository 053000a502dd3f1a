#include "common/delta/prefix_code.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"

namespace refit {
namespace {

constexpr int kMaxRun = 16;  // symbols that one byte of the lengths covers

// Depths of the leaves of Huffman's tree. Weights ascend; there are at least two.
std::vector<int> TreeDepths(const std::vector<uint64_t>& weights) {
  const size_t leaves = weights.size();
  std::vector<uint64_t> weight = weights;
  weight.resize(2 * leaves - 1, std::numeric_limits<uint64_t>::max());
  std::vector<size_t> parent(2 * leaves - 1);
  // The lightest is either the next leaf or the oldest inner node: both ascend.
  size_t leaf = 0;
  size_t inner = leaves;
  for (size_t node = leaves; node < weight.size(); ++node) {
    uint64_t sum = 0;
    for (int child = 0; child < 2; ++child) {
      const bool take_leaf = leaf < leaves && (inner == node || weight[leaf] <= weight[inner]);
      const size_t lightest = take_leaf ? leaf++ : inner++;
      parent[lightest] = node;
      sum += weight[lightest];
    }
    weight[node] = sum;
  }
  std::vector<int> depth(weight.size());
  for (size_t node = weight.size() - 1; node-- > 0;) depth[node] = depth[parent[node]] + 1;
  depth.resize(leaves);
  return depth;
}

// The first code of each length.
std::array<uint16_t, kMaxCodeLength + 1> FirstCodes(const CodeLengths& lengths) {
  std::array<uint16_t, kMaxCodeLength + 1> codes{};
  for (const uint8_t length : lengths) {
    if (length != 0) ++codes[length];
  }
  uint16_t first = 0;
  for (int length = 1; length <= kMaxCodeLength; ++length) {
    const uint16_t count = codes[length];
    codes[length] = first;
    first = static_cast<uint16_t>((first + count) << 1);
  }
  return codes;
}

bool IsAlone(const CodeLengths& lengths) {
  return std::count(lengths.begin(), lengths.end(), 0) == static_cast<std::ptrdiff_t>(lengths.size()) - 1;
}

// Of a complete code every sequence of bits means something, and only one thing.
bool IsComplete(const CodeLengths& lengths) {
  int space = 0;
  for (const uint8_t length : lengths) {
    if (length != 0) space += 1 << (kMaxCodeLength - length);
  }
  const bool alone = IsAlone(lengths) && space == 1 << (kMaxCodeLength - 1);
  return alone || space == 1 << kMaxCodeLength;
}

absl::Status Malformed(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("malformed delta payload: ", what));
}

}  // namespace

CodeLengths LengthsFor(const SymbolCounts& counts) {
  std::vector<int> symbols;
  for (int symbol = 0; symbol < kSymbols; ++symbol) {
    if (counts[symbol] != 0) symbols.push_back(symbol);
  }
  CodeLengths lengths{};
  if (symbols.size() == 1) {
    lengths[symbols[0]] = 1;
    return lengths;
  }
  std::stable_sort(symbols.begin(), symbols.end(), [&](int a, int b) { return counts[a] < counts[b]; });
  std::vector<uint64_t> weights;
  weights.reserve(symbols.size());
  for (const int symbol : symbols) weights.push_back(counts[symbol]);
  std::vector<int> depths = TreeDepths(weights);
  // Flatter weights make a flatter tree; equal ones one that is flat enough.
  while (*std::max_element(depths.begin(), depths.end()) > kMaxCodeLength) {
    for (uint64_t& weight : weights) weight = weight / 2 + 1;
    depths = TreeDepths(weights);
  }
  for (size_t i = 0; i < symbols.size(); ++i) lengths[symbols[i]] = static_cast<uint8_t>(depths[i]);
  return lengths;
}

NumberBits NumberBitsOf(const CodeLengths& lengths) {
  const bool alone = IsAlone(lengths);
  NumberBits bits{std::numeric_limits<int>::max(), 0};
  for (int symbol = 0; symbol < kSymbols; ++symbol) {
    if (lengths[symbol] == 0) continue;
    const int all = (alone ? 0 : lengths[symbol]) + PlainBitsOfSymbol(symbol);
    bits = {std::min(bits.least, all), std::max(bits.most, all)};
  }
  return bits;
}

Codebook CodebookOf(const CodeLengths& lengths) {
  Codebook book{.most_bits = NumberBitsOf(lengths).most};
  if (IsAlone(lengths)) return book;
  auto next = FirstCodes(lengths);
  for (int symbol = 0; symbol < kSymbols; ++symbol) {
    const uint8_t length = lengths[symbol];
    if (length != 0) book.words[symbol] = {next[length]++, length};
  }
  return book;
}

void FillDecodingTable(const CodeLengths& lengths, DecodingTable& table) {
  const Codebook book = CodebookOf(lengths);
  table.most_bits = book.most_bits;
  for (int symbol = 0; symbol < kSymbols; ++symbol) {
    if (lengths[symbol] == 0) continue;
    const Codeword& code = book.words[symbol];
    const int plain = PlainBitsOfSymbol(symbol);
    const auto high = static_cast<uint64_t>(HighBitsOfSymbol(symbol));
    const DecodedSymbol meaning = {static_cast<uint8_t>(code.length + plain), code.length, static_cast<uint8_t>(symbol),
                                   static_cast<uint32_t>((high - code.bits) << plain)};
    const int unused = kMaxCodeLength - code.length;
    std::fill_n(table.symbols.begin() + (code.bits << unused), 1 << unused, meaning);
  }
}

uint64_t StreamBits(const SymbolCounts& counts, const CodeLengths& lengths) {
  const bool alone = IsAlone(lengths);
  uint64_t bits = 0;
  for (int symbol = 0; symbol < kSymbols; ++symbol) {
    bits += uint64_t{counts[symbol]} * ((alone ? 0 : lengths[symbol]) + PlainBitsOfSymbol(symbol));
  }
  return bits;
}

void AppendLengths(const CodeLengths& lengths, std::vector<std::byte>& out) {
  const size_t runs_at = out.size();
  out.push_back({});
  int end = kSymbols;
  while (lengths[end - 1] == 0) --end;
  for (int symbol = 0; symbol < end;) {
    int run = 1;
    while (symbol + run < end && run < kMaxRun && lengths[symbol + run] == lengths[symbol]) ++run;
    out.push_back(static_cast<std::byte>(lengths[symbol] << 4 | (run - 1)));
    symbol += run;
  }
  out[runs_at] = static_cast<std::byte>(out.size() - runs_at - 1);
}

absl::StatusOr<CodeLengths> TakeLengths(absl::Span<const std::byte>& bytes, int last) {
  if (bytes.empty() || std::to_integer<size_t>(bytes[0]) >= bytes.size()) return Malformed("it ends within a code");
  const absl::Span<const std::byte> runs = bytes.subspan(1, std::to_integer<size_t>(bytes[0]));
  bytes.remove_prefix(1 + runs.size());
  CodeLengths lengths{};
  int symbol = 0;
  for (const std::byte run : runs) {
    const int length = std::to_integer<int>(run >> 4);
    const int count = 1 + std::to_integer<int>(run & std::byte{0x0f});
    if (length > kMaxCodeLength) return Malformed(absl::StrCat("a code of ", length, " bits"));
    if (symbol + count > last + 1) {
      return Malformed(absl::StrCat("a code for symbol ", symbol + count - 1, ", the largest here is ", last));
    }
    std::fill_n(lengths.begin() + symbol, count, static_cast<uint8_t>(length));
    symbol += count;
  }
  if (!IsComplete(lengths)) return Malformed("lengths that are those of no complete code");
  return lengths;
}

}  // namespace refit
