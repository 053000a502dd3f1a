// Digests of chunks, tensors and manifests. See proto/README.md.
//
//   chunk     XXH3-64 (seed 0) of its bytes
//   tensor    XXH3-64 of the little-endian digests of the tensor's blocks, in order; block b holds the tensor's bytes
//             [b * chunk_bytes, (b + 1) * chunk_bytes), the last may be shorter; an empty tensor has no blocks
//   manifest  XXH3-64 of every entry's name, 0x00, dtype name, 0x00, shape as decimal numbers joined by ',', 0x00, and
//             little-endian tensor digest. Of a proper part of a tensor the global shape is followed by '@', the box's
//             offsets joined by ',', '+', and its sizes joined by ','; its tensor digest covers the part's own bytes
//
// Digests detect damage and mix-ups. They are no signatures: who may push is a matter of TLS and roles.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/functional/function_ref.h"
#include "absl/types/span.h"
#include "refit/box.h"
#include "refit/sizes.h"
#include "refit/tensor_spec.h"

namespace refit {

class Hasher;

uint64_t DigestBytes(absl::Span<const std::byte> bytes);

// Copies the bytes to `dst`, which has room for them, and returns the digest.
uint64_t CopyAndDigest(absl::Span<const std::byte> bytes, std::byte* dst);

// Has `write` fill the target piece by piece, in order, and returns the digest. Each piece is digested while it is in
// the cache. `begin` is the piece's place in the target, a multiple of every element's size.
uint64_t WriteAndDigest(absl::Span<std::byte> target,
                        absl::FunctionRef<void(uint64_t begin, absl::Span<std::byte> piece)> write);

// Number of chunks of a tensor of `bytes`: at least 1 (an empty tensor is one empty chunk).
uint64_t ChunkCount(uint64_t bytes, uint64_t chunk_bytes);

// Tensor digest from the digests of its blocks. For an empty tensor pass none.
uint64_t TensorDigest(absl::Span<const uint64_t> block_digests);

// Digest of a tensor whose memory is contiguous.
uint64_t DigestTensor(absl::Span<const std::byte> tensor, uint64_t chunk_bytes);

// Computes a tensor's digest from bytes that arrive in order, in pieces of any size.
class TensorDigester {
 public:
  explicit TensorDigester(uint64_t chunk_bytes);
  ~TensorDigester();
  TensorDigester(TensorDigester&&) noexcept;
  TensorDigester& operator=(TensorDigester&&) noexcept;

  void Update(absl::Span<const std::byte> bytes);
  // Adds the next block by its known digest, so that it is not hashed again. Only for a whole block (or the tensor's
  // last), at a block boundary.
  void UpdateBlock(uint64_t block_digest);
  // Adds a chunk with its digest. If it is a block, it is not hashed again. `ends`: it is the tensor's last.
  void UpdateChunk(absl::Span<const std::byte> chunk, uint64_t chunk_digest, bool ends);
  // Returns the digest of all bytes. The digester must not be used afterwards.
  uint64_t Finish();

 private:
  void EndBlock();

  uint64_t block_bytes_;
  uint64_t filled_ = 0;            // bytes of the current block
  std::unique_ptr<Hasher> block_;  // used if a block arrives in pieces
  absl::InlinedVector<uint64_t, 1> block_digests_;
};

class ManifestDigester {
 public:
  ManifestDigester();
  ~ManifestDigester();
  ManifestDigester(ManifestDigester&&) noexcept;
  ManifestDigester& operator=(ManifestDigester&&) noexcept;

  void Add(const TensorSpec& spec, uint64_t tensor_digest);
  // A whole part is digested like its tensor.
  void Add(const TensorPart& part, uint64_t part_digest);
  uint64_t Finish() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace refit
