#include "common/net/received_message.h"

#include <grpcpp/support/slice.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "common/wire/hasher.h"

namespace refit {
namespace {

absl::Span<const std::byte> Bytes(const grpc::Slice& slice) {
  return {reinterpret_cast<const std::byte*>(slice.begin()), slice.size()};
}

}  // namespace

ReceivedMessage::ReceivedMessage(grpc::ByteBuffer buffer) : buffer_(std::move(buffer)) {
  if (!buffer_.Valid() || !buffer_.Dump(&slices_).ok()) slices_.clear();
  for (const grpc::Slice& slice : slices_) size_ += slice.size();
}

absl::StatusOr<std::optional<DecodedChunk>> ReceivedMessage::DecodeChunk() const {
  std::array<std::byte, kMaxChunkPrefixBytes> head;
  size_t filled = 0;
  for (const grpc::Slice& slice : slices_) {
    const size_t taken = std::min(slice.size(), head.size() - filled);
    if (taken == 0) continue;
    std::memcpy(head.data() + filled, slice.begin(), taken);
    filled += taken;
  }
  return DecodeChunkPrefix({head.data(), filled}, size_);
}

std::optional<std::vector<ChunkView>> ReceivedMessage::DecodeBatch() const {
  if (size_ == 0 || !IsBatch(Bytes(slices_.front()).front())) return std::nullopt;
  if (slices_.size() == 1) return refit::DecodeBatch(Bytes(slices_.front()));
  if (in_one_piece_ == nullptr) {
    in_one_piece_ = std::make_unique_for_overwrite<std::byte[]>(size_);
    std::byte* end = in_one_piece_.get();
    ForEachRun(0, [&end](absl::Span<const std::byte> run) { end = std::copy(run.begin(), run.end(), end); });
  }
  return refit::DecodeBatch({in_one_piece_.get(), size_});
}

void ReceivedMessage::ForEachRun(uint64_t offset, const std::function<void(absl::Span<const std::byte>)>& sink) const {
  for (const grpc::Slice& slice : slices_) {
    const uint64_t skipped = std::min<uint64_t>(offset, slice.size());
    offset -= skipped;
    if (skipped < slice.size()) sink(Bytes(slice).subspan(skipped));
  }
}

uint64_t ReceivedMessage::CopyAndDigest(uint64_t offset, std::byte* dst, Through through) const {
  thread_local Hasher hasher;  // allocates only once
  hasher.Reset();
  ForEachRun(offset, [&](absl::Span<const std::byte> run) {
    if (through == Through::kPastCache) {
      hasher.UpdateAndCopyPastCache(run.data(), run.size(), dst);
    } else {
      hasher.CopyAndUpdate(run.data(), run.size(), dst);
    }
    dst += run.size();
  });
  return hasher.Digest();
}

}  // namespace refit
