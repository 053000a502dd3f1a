// XXH3-64 of bytes that arrive in pieces, with the widest vector instructions of the processor.
#pragma once

// Chooses SSE2, AVX2 or AVX-512 at run time, if the installed library was built for that (Debian's is). Otherwise the
// compiler's flags decide.
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
  // Bytes that stay in the cache between writing and hashing them.
  static constexpr size_t kHotBytes = 64 << 10;

  Hasher() : state_(XXH3_createState()) { Reset(); }

  void Reset() { XXH3_64bits_reset(state_.get()); }
  void Update(const void* data, size_t size) { XXH3_64bits_update(state_.get(), data, size); }
  // Copies the bytes to `dst` and hashes them, piece by piece, so that each piece is hashed while it is in the cache.
  void CopyAndUpdate(const void* data, size_t size, void* dst) {
    for (size_t at = 0; at < size; at += kHotBytes) {
      const size_t piece = std::min(kHotBytes, size - at);
      auto* to = static_cast<std::byte*>(dst) + at;
      std::memcpy(to, static_cast<const std::byte*>(data) + at, piece);
      Update(to, piece);
    }
  }
  // As CopyAndUpdate, but the copy bypasses the cache; see CopyPastCache. It hashes what it reads, not what it writes,
  // so no other thread may change the bytes meanwhile.
  void UpdateAndCopyPastCache(const void* data, size_t size, void* dst) {
    for (size_t at = 0; at < size; at += kHotBytes) {
      const size_t piece = std::min(kHotBytes, size - at);
      const std::byte* from = static_cast<const std::byte*>(data) + at;
      Update(from, piece);
      CopyPastCache(from, static_cast<std::byte*>(dst) + at, piece);
    }
  }
  uint64_t Digest() const { return XXH3_64bits_digest(state_.get()); }

  // Hash of contiguous bytes. Faster than Update.
  static uint64_t Of(const void* data, size_t size) { return XXH3_64bits(data, size); }

 private:
  struct Free {
    void operator()(XXH3_state_t* state) const { XXH3_freeState(state); }
  };
  // Only the library knows the state's size.
  std::unique_ptr<XXH3_state_t, Free> state_;
};

}  // namespace refit
