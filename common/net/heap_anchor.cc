#include "common/net/heap_anchor.h"

#include <vector>

namespace refit {
namespace {

// Short messages take little memory, and their bytes may lie in the slice itself.
constexpr size_t kShortMessageBytes = 64 << 10;
constexpr size_t kLeastSliceBytes = 1 << 10;
// glibc's heaps of threads begin at multiples of this. The main heap may have several such stretches; the anchor in the
// last one is the one that counts.
constexpr int kHeapBits = 26;
constexpr size_t kMaxHeaps = 16;

}  // namespace

void HeapAnchor::Hold(const grpc::ByteBuffer& message) {
  if (!message.Valid() || message.Length() < kShortMessageBytes) return;
  std::vector<grpc::Slice> slices;
  if (!message.Dump(&slices).ok()) return;
  for (const grpc::Slice& slice : slices) {
    if (slice.size() < kLeastSliceBytes) continue;
    grpc::Slice& highest = highest_[reinterpret_cast<uintptr_t>(slice.begin()) >> kHeapBits];
    if (highest.size() == 0 || highest.begin() < slice.begin()) highest = slice;
  }
  while (highest_.size() > kMaxHeaps) highest_.erase(highest_.begin());
}

}  // namespace refit
