// XXH3-64 of bytes that come in pieces, with the widest vectors that the processor has.
#pragma once

// Chooses among SSE2, AVX2 and AVX-512 at run time, where the installed library was built to (Debian's is). Elsewhere
// one code for all, as the compiler's flags say.
#ifdef REFIT_XXHASH_DISPATCH
#include <xxh_x86dispatch.h>
#else
#include <xxhash.h>
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>

#include "common/tensor/kernels.h"

namespace refit {

class Hasher {
 public:
  Hasher() : state_(XXH3_createState()) { Reset(); }

  void Reset() { XXH3_64bits_reset(state_.get()); }
  void Update(const void* data, size_t size) { XXH3_64bits_update(state_.get(), data, size); }
  // Copies the bytes to `dst` on the way: piece by piece, so that each is hashed while it is in the cache.
  void CopyAndUpdate(const void* data, size_t size, void* dst) {
    for (size_t at = 0; at < size; at += kHotBytes) {
      const size_t piece = std::min(kHotBytes, size - at);
      auto* to = static_cast<std::byte*>(dst) + at;
      std::memcpy(to, static_cast<const std::byte*>(data) + at, piece);
      Update(to, piece);
    }
  }
  // The same past the cache; see CopyPastCache. Hashes what it reads, not what it wrote: the bytes must be nobody
  // else's.
  void UpdateAndCopyPastCache(const void* data, size_t size, void* dst) {
    for (size_t at = 0; at < size; at += kHotBytes) {
      const size_t piece = std::min(kHotBytes, size - at);
      const std::byte* from = static_cast<const std::byte*>(data) + at;
      Update(from, piece);
      CopyPastCache(from, static_cast<std::byte*>(dst) + at, piece);
    }
  }
  uint64_t Digest() const { return XXH3_64bits_digest(state_.get()); }

  // Of bytes that lie in one piece; faster than Update for them.
  static uint64_t Of(const void* data, size_t size) { return XXH3_64bits(data, size); }

 private:
  static constexpr size_t kHotBytes = 64 << 10;

  struct Free {
    void operator()(XXH3_state_t* state) const { XXH3_freeState(state); }
  };
  // Only the library knows how large it is.
  std::unique_ptr<XXH3_state_t, Free> state_;
};

}  // namespace refit
