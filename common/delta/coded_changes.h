// Changes as two streams of bits: the gaps between their positions, and their folded differences.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "common/delta/changes.h"
#include "common/delta/prefix_code.h"

namespace refit {

// How often each symbol occurs. The differences are folded.
SymbolCounts CountGaps(const Changes& changes);
SymbolCounts CountDifferences(const Changes& changes, size_t element_size);

// Up to 8 bytes beyond the end of the stream are written, too.
void WriteGaps(const Changes& changes, const Codebook& book, std::byte* out);
void WriteDifferences(const Changes& changes, size_t element_size, const Codebook& book, std::byte* out);

struct CodedChanges {
  const DecodingTable& gap_table;
  const DecodingTable& difference_table;
  absl::Span<const std::byte> gaps;
  absl::Span<const std::byte> differences;
};
struct ReadChanges {
  uint64_t elements = 0;  // up to and with the last position: those in the changes are right if these are few enough
  uint64_t gap_bits = 0;  // that were read: more than are there means that something is missing
  uint64_t difference_bits = 0;
  bool too_large = false;  // a difference
};

// Reads so many changes, with the differences unfolded. Nothing is written but to `changes`, whatever the streams hold.
// No code may stand for a symbol that is larger than what kMaxDeltaElements of this size can need.
ReadChanges Read(const CodedChanges& coded, size_t count, size_t element_size, Changes& changes);

}  // namespace refit
