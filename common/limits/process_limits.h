// Descriptors, mappings and addresses: what of them memory may take, and what to say when one has run out.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"

namespace refit {

// Whether memory may keep the descriptor `newest`, which was just opened and so was the lowest number that was free.
// Half of the limit, at most 512, is for connections and for the rest of the process. RESOURCE_EXHAUSTED, naming
// number, limit and setting, if it is one of those.
absl::Status CheckDescriptorsLeft(int newest);

// Whether a file, as shared memory is one, may have so many bytes (ulimit -f): the system ends a process that makes a
// larger one (SIGXFSZ). RESOURCE_EXHAUSTED, naming both numbers and the setting, if not.
absl::Status CheckFileSize(uint64_t bytes);

// Whether the system gives no more memory than it has (vm.overcommit_memory=2). Shared memory is then to be had at
// once: a page of it that is not there when it is touched ends the process (SIGBUS).
bool IsMemoryCountedStrictly();

// Whether memory may take `bytes` more of this process's addresses. An eighth of the limit (ulimit -v), at most 256
// MiB, is for what cannot be refused, such as gRPC's messages. RESOURCE_EXHAUSTED, naming limit and use, if it may not.
absl::Status CheckAddressesLeft(uint64_t bytes);

// Whether memory may take a mapping more. The last 128 that vm.max_map_count allows are for what cannot do without,
// such as gRPC's messages and new threads; found out by taking them for a moment, which costs microseconds.
// RESOURCE_EXHAUSTED, naming limit, use and setting, if it may not.
absl::Status CheckMappingsLeft();

// How many mappings memory may take: a quarter of vm.max_map_count.
uint64_t MostMappingsOfMemory();

// Why mmap of `bytes` failed with errno `error`: names the limit that was hit, how much of it is used, and its setting.
std::string WhyNotMapped(uint64_t bytes, int error);

// Why open, or memfd_create, failed with errno `error`; likewise.
std::string WhyNotOpened(int error);

}  // namespace refit
