#include "server/pull/version_part.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "common/wire/digest.h"

namespace refit {

VersionPart::VersionPart(std::shared_ptr<Version> version, size_t tensor, Box box, PackedChunks& packed)
    : version_(std::move(version)),
      tensor_(tensor),
      part_{version_->spec(tensor), std::move(box)},
      runs_(part_.tensor.shape, part_.box),
      packed_(packed) {
  absl::MutexLock lock(&mutex_);
  chunk_digests_.resize(chunk_count());
}

VersionPart::~VersionPart() { packed_.Drop(this); }

uint64_t VersionPart::chunk_count() const { return ChunkCount(part_.ByteSize(), version_->chunk_bytes()); }

VersionPart::Range VersionPart::OwnBytes(uint64_t chunk) const {
  const uint64_t begin = chunk * version_->chunk_bytes();
  return {begin, std::min(begin + version_->chunk_bytes(), part_.ByteSize())};
}

VersionPart::Range VersionPart::TensorBytes(uint64_t chunk) const {
  const uint64_t size = ElementSize(part_.tensor.dtype);
  const Range own = OwnBytes(chunk);
  if (own.begin == own.end) return {0, 0};
  const auto place = [&](uint64_t byte) {
    uint64_t found = 0;
    runs_.ForEach(static_cast<int64_t>(byte / size), 1,
                  [&](int64_t at, int64_t) { found = static_cast<uint64_t>(at) * size; });
    return found;
  };
  return {place(own.begin), place(own.end - size) + size};
}

absl::StatusOr<std::shared_ptr<const Buffer>> VersionPart::Pack(uint64_t chunk,
                                                                absl::Span<const std::byte> tensor) const {
  const Range own = OwnBytes(chunk);
  absl::StatusOr<std::shared_ptr<Buffer>> buffer = packed_.NewBuffer(own.end - own.begin);
  if (!buffer.ok()) return buffer.status();
  const auto size = static_cast<int64_t>(ElementSize(part_.tensor.dtype));
  const auto first = static_cast<int64_t>(own.begin) / size;
  const auto count = static_cast<int64_t>(own.end - own.begin) / size;
  std::byte* out = (*buffer)->data();
  runs_.ForEach(first, count, [&](int64_t place, int64_t elements) {
    std::memcpy(out, tensor.data() + place * size, elements * size);
    out += elements * size;
  });
  return *std::move(buffer);
}

absl::StatusOr<std::optional<Version::Chunk>> VersionPart::Get(uint64_t chunk) {
  const Range from = TensorBytes(chunk);
  absl::StatusOr<std::optional<Version::Bytes>> tensor = version_->GetBytes(tensor_, from.begin, from.end);
  if (!tensor.ok()) return tensor.status();
  if (!tensor->has_value()) return std::nullopt;
  Version::Chunk result;
  if (runs_.is_contiguous() && from.begin != from.end) {
    result.owner = (*tensor)->owner;
    result.bytes = (*tensor)->bytes.subspan(from.begin, from.end - from.begin);
  } else {
    result.owner = packed_.Find(this, chunk);
    if (result.owner == nullptr) {
      absl::StatusOr<std::shared_ptr<const Buffer>> packed = Pack(chunk, (*tensor)->bytes);
      if (!packed.ok()) return packed.status();
      packed_.Insert(this, chunk, *packed);
      result.owner = *std::move(packed);
    }
    result.bytes = result.owner->span();
  }
  std::optional<uint64_t>& digest = chunk_digests_[chunk];
  if (!digest.has_value()) digest = DigestBytes(result.bytes);
  result.digest = *digest;
  return result;
}

absl::StatusOr<std::optional<Version::Chunk>> VersionPart::GetChunk(uint64_t chunk) {
  absl::MutexLock lock(&mutex_);
  absl::StatusOr<std::optional<Version::Chunk>> result = Get(chunk);
  if (!result.ok() || !result->has_value() || chunk + 1 != chunk_count()) return result;
  // The last chunk carries the digest of all chunks. A worker that resumed may not have requested the first ones here.
  for (uint64_t i = 0; i < chunk; ++i) {
    if (digest_.has_value() || chunk_digests_[i].has_value()) continue;
    const absl::StatusOr<std::optional<Version::Chunk>> earlier = Get(i);
    if (!earlier.ok() || !earlier->has_value()) return earlier;
  }
  if (!digest_.has_value()) {
    std::vector<uint64_t> blocks;
    for (const std::optional<uint64_t>& block : chunk_digests_) blocks.push_back(*block);
    digest_ = TensorDigest(part_.ByteSize() == 0 ? absl::Span<const uint64_t>() : absl::MakeConstSpan(blocks));
  }
  (*result)->tensor_digest = digest_;
  return result;
}

uint64_t VersionPart::Wait(uint64_t chunk, std::function<void()> wake) const {
  // The last chunk needs the digests of all.
  const Range first = TensorBytes(chunk + 1 == chunk_count() ? 0 : chunk);
  return version_->WaitForBytes(tensor_, first.begin, TensorBytes(chunk).end, std::move(wake));
}

std::optional<uint64_t> VersionPart::chunk_digest(uint64_t chunk) const {
  absl::MutexLock lock(&mutex_);
  return chunk_digests_[chunk];
}

std::optional<uint64_t> VersionPart::digest() const {
  absl::MutexLock lock(&mutex_);
  return digest_;
}

}  // namespace refit
