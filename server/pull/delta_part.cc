#include "server/pull/delta_part.h"

#include <cstring>

#include "absl/status/statusor.h"
#include "common/wire/digest.h"

namespace refit {

DeltaPart::DeltaPart(uint64_t chunks, size_t element_size, ChunkCache& cache)
    : element_size_(element_size), cache_(cache) {
  absl::MutexLock lock(&mutex_);
  slots_.resize(chunks);
}

DeltaPart::~DeltaPart() { cache_.Drop(this); }

DeltaChunk DeltaPart::Get(uint64_t chunk, const Version::Chunk& base, const Version::Chunk& now) {
  {
    absl::MutexLock lock(&mutex_);
    Slot& slot = slots_[chunk];
    mutex_.Await(absl::Condition(
        +[](Slot* other) { return !other->encoding; }, &slot));
    if (slot.encoded) {
      if (slot.kind != EncodedDelta::Kind::kDelta) return {slot.kind};
      DeltaChunk kept{slot.kind, cache_.Find(this, chunk), slot.digest, slot.changed};
      if (kept.payload != nullptr) return kept;
    }
    slot.encoding = true;
  }
  DeltaChunk encoded = Encode(base.bytes, now.bytes);
  if (encoded.payload != nullptr) cache_.Insert(this, chunk, encoded.payload);
  absl::MutexLock lock(&mutex_);
  slots_[chunk] = {false, true, encoded.kind, encoded.digest, encoded.changed};
  return encoded;
}

DeltaChunk DeltaPart::Encode(absl::Span<const std::byte> base, absl::Span<const std::byte> now) const {
  thread_local DeltaEncoder encoder;  // keeps its memory
  const absl::StatusOr<EncodedDelta> delta = encoder.Encode(base, now, element_size_);
  if (!delta.ok() || delta->kind == EncodedDelta::Kind::kRaw) return {};
  if (delta->kind == EncodedDelta::Kind::kUnchanged) return {delta->kind};
  const absl::StatusOr<std::shared_ptr<Buffer>> payload = Buffer::Allocate(delta->payload.size());
  if (!payload.ok()) return {};
  std::memcpy((*payload)->data(), delta->payload.data(), delta->payload.size());
  return {delta->kind, *payload, DigestBytes(delta->payload), delta->changed};
}

}  // namespace refit
