// Checks whether foreign memory can be accessed. Access ends the process by a signal if a mapped file was truncated, or
// if nothing is mapped at the address.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"

namespace refit {

// Checks for one call. It caches results for neighbouring memory, so make a new one for each call. Resident pages cost
// one mincore for many MiB. Other pages are read in by the kernel (MADV_POPULATE_READ, Linux 5.14); older kernels only
// detect memory that is not mapped at all. For a file that this user may not write, the kernel does not say which pages
// are resident, so a truncated file is not detected.
class MemoryProbe {
 public:
  // INVALID_ARGUMENT, naming the address and the reason, if reading all of [bytes) now would raise a signal, or for a
  // null address with bytes. OK for no bytes.
  absl::Status CheckReadable(absl::Span<const std::byte> bytes);

  // As CheckReadable, for writing. Whether a mapping is read-only is checked only at the pages of both ends.
  absl::Status CheckWritable(absl::Span<const std::byte> bytes);

 private:
  bool FindResident(uintptr_t begin, uintptr_t end);

  // Pages that were resident: [seen_begin_, seen_end_).
  uintptr_t seen_begin_ = 0;
  uintptr_t seen_end_ = 0;
};

}  // namespace refit
