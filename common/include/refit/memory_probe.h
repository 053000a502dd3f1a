// Looks whether memory that somebody else owns can be touched, before it is: where a file was truncated under its
// mapping, or nothing is mapped at an address, touching it ends the process by a signal.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"

namespace refit {

// One caller's looks, of one moment: it remembers what it has seen for neighbours, so make a new one for each call.
// Pages that are in memory cost one mincore for MiBs of them; others are brought in by the kernel, as reading would
// (MADV_POPULATE_READ, Linux 5.14; before that, only what is not mapped at all is found). Of a file that this user may
// not write, the kernel does not say which pages are in memory: what is truncated there is not found.
class MemoryProbe {
 public:
  // INVALID_ARGUMENT, saying what is wrong with which address, if reading all of [bytes) now would end in a signal; or
  // for a null address with bytes. OK for no bytes.
  absl::Status CheckReadable(absl::Span<const std::byte> bytes);

  // The same for writing. Of read-only mappings, the pages at both ends are looked at.
  absl::Status CheckWritable(absl::Span<const std::byte> bytes);

 private:
  bool FindResident(uintptr_t begin, uintptr_t end);

  // Pages that were in memory: [seen_begin_, seen_end_).
  uintptr_t seen_begin_ = 0;
  uintptr_t seen_end_ = 0;
};

}  // namespace refit
