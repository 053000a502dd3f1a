#include "server/pull/delta_part.h"

#include <cstring>

#include "common/limits/within_memory.h"
#include "common/wire/digest.h"

namespace refit {
namespace {

DeltaChunk InBuffer(const EncodedDelta& delta) {
  if (delta.kind != EncodedDelta::Kind::kDelta) return {delta.kind};
  const absl::StatusOr<std::shared_ptr<Buffer>> payload = Buffer::Allocate(delta.payload.size());
  if (!payload.ok()) return {};
  std::memcpy((*payload)->data(), delta.payload.data(), delta.payload.size());
  return {delta.kind, *payload, DigestBytes(delta.payload), delta.changed};
}

}  // namespace

DeltaPart::DeltaPart(uint64_t chunks, ChunkCache& cache) : cache_(cache) {
  absl::MutexLock lock(&mutex_);
  slots_.resize(chunks);
}

DeltaPart::~DeltaPart() { cache_.Drop(this); }

DeltaChunk DeltaPart::Find(uint64_t chunk, const Slot& slot) const {
  if (slot.kind != EncodedDelta::Kind::kDelta) return {slot.kind};
  DeltaChunk found{slot.kind, cache_.Find(this, chunk), slot.digest, slot.changed};
  return found.payload != nullptr ? found : DeltaChunk();
}

DeltaChunk DeltaPart::Find(uint64_t chunk) const {
  absl::MutexLock lock(&mutex_);
  return slots_[chunk].encoded ? Find(chunk, slots_[chunk]) : DeltaChunk();
}

DeltaChunk DeltaPart::Get(uint64_t chunk, absl::FunctionRef<absl::StatusOr<EncodedDelta>()> encode) {
  {
    absl::MutexLock lock(&mutex_);
    Slot& slot = slots_[chunk];
    mutex_.Await(absl::Condition(
        +[](Slot* other) { return !other->encoding; }, &slot));
    if (slot.encoded) {
      const DeltaChunk found = Find(chunk, slot);
      if (found.kind == slot.kind) return found;
    }
    slot.encoding = true;
  }
  // Must not throw: other threads wait until the chunk is no longer being encoded.
  const absl::StatusOr<DeltaChunk> made = WithinMemory("a delta", [&]() -> absl::StatusOr<DeltaChunk> {
    const absl::StatusOr<EncodedDelta> delta = encode();
    if (!delta.ok()) return delta.status();
    DeltaChunk encoded = InBuffer(*delta);
    if (encoded.payload != nullptr) cache_.Insert(this, chunk, encoded.payload);
    return encoded;
  });
  const DeltaChunk encoded = made.value_or(DeltaChunk());
  absl::MutexLock lock(&mutex_);
  slots_[chunk] = {false, true, encoded.kind, encoded.digest, encoded.changed};
  return encoded;
}

}  // namespace refit
