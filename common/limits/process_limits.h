// Limits on descriptors, mappings and address space: how much of them buffers may use, and error messages when one is
// reached.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"

namespace refit {

// Checks whether a buffer may keep the descriptor `newest`, which was just opened and so has the lowest free number.
// Half of the limit, at most 512, is reserved for connections and the rest of the process. RESOURCE_EXHAUSTED, naming
// number, limit and setting, if it is a reserved one.
absl::Status CheckDescriptorsLeft(int newest);

// Checks whether a file may have this size (ulimit -f). Shared memory is a file too. The system ends a process that
// makes a larger one (SIGXFSZ). RESOURCE_EXHAUSTED, naming both numbers and the setting, if not.
absl::Status CheckFileSize(uint64_t bytes);

// Whether the system never promises more memory than it has (vm.overcommit_memory=2). Shared memory must then be
// reserved at once: touching a page for which there is no memory ends the process (SIGBUS).
bool IsMemoryCountedStrictly();

// Checks whether buffers may use `bytes` more of this process's address space. An eighth of the limit (ulimit -v), at
// most 256 MiB, is reserved for allocations that cannot fail, such as gRPC's messages. RESOURCE_EXHAUSTED, naming limit
// and use, if not.
absl::Status CheckAddressesLeft(uint64_t bytes);

// Checks whether buffers may use one more mapping. The last 128 that vm.max_map_count allows are reserved for what
// cannot do without, such as gRPC's messages and new threads. The check takes them for a moment, which costs
// microseconds. RESOURCE_EXHAUSTED, naming limit, use and setting, if not.
absl::Status CheckMappingsLeft();

// How many mappings buffers may use: a quarter of vm.max_map_count.
uint64_t MostMappingsOfMemory();

// Explains why mmap of `bytes` failed with errno `error`: names the limit that was reached, its use, and its setting.
std::string WhyNotMapped(uint64_t bytes, int error);

// Explains why open or memfd_create failed with errno `error`, in the same way.
std::string WhyNotOpened(int error);

}  // namespace refit
