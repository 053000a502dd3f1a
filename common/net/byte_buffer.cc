#include "common/net/byte_buffer.h"

#include <grpcpp/support/proto_buffer_reader.h>
#include <grpcpp/support/slice.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/wire/hasher.h"

namespace refit {
namespace {

absl::Span<const std::byte> Bytes(const grpc::Slice& slice) {
  return {reinterpret_cast<const std::byte*>(slice.begin()), slice.size()};
}

using Owner = std::shared_ptr<const void>;

void ReleaseOwner(void* owner) { std::unique_ptr<Owner> released(static_cast<Owner*>(owner)); }

grpc::Slice BorrowingSlice(absl::Span<const std::byte> bytes, Owner owner) {
  // gRPC does not write to a slice that it sends.
  void* data = const_cast<std::byte*>(bytes.data());
  return grpc::Slice(data, bytes.size(), &ReleaseOwner, std::make_unique<Owner>(std::move(owner)).release());
}

grpc::ByteBuffer ChunkMessage(const ChunkHeader& header, const grpc::Slice& payload) {
  const std::array<grpc::Slice, 2> slices = {grpc::Slice(EncodeChunkPrefix(header, payload.size())), payload};
  return grpc::ByteBuffer(slices.data(), payload.size() == 0 ? 1 : 2);
}

}  // namespace

grpc::ByteBuffer Serialize(const google::protobuf::MessageLite& message) {
  const grpc::Slice slice(message.ByteSizeLong());
  message.SerializeWithCachedSizesToArray(const_cast<uint8_t*>(slice.begin()));
  return grpc::ByteBuffer(&slice, 1);
}

absl::Status Parse(const grpc::ByteBuffer& buffer, google::protobuf::MessageLite& message) {
  grpc::ByteBuffer copy = buffer;  // copies references, not bytes: the reader needs a buffer that is not const
  grpc::ProtoBufferReader reader(&copy);
  if (reader.status().ok() && message.ParseFromZeroCopyStream(&reader)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("a message of ", buffer.Valid() ? buffer.Length() : 0,
                                                 " bytes is no valid ", message.GetTypeName()));
}

grpc::ByteBuffer MakeChunkMessage(const ChunkHeader& header, absl::Span<const std::byte> payload,
                                  std::shared_ptr<const void> owner) {
  return ChunkMessage(header, BorrowingSlice(payload, std::move(owner)));
}

grpc::ByteBuffer CopyChunkMessage(const ChunkHeader& header, absl::Span<const std::byte> payload) {
  return ChunkMessage(header, grpc::Slice(payload.data(), payload.size()));
}

grpc::ByteBuffer MakeBatchMessage(std::string entries) {
  const auto owner = std::make_shared<const std::string>(std::move(entries));
  const absl::Span<const std::byte> bytes(reinterpret_cast<const std::byte*>(owner->data()), owner->size());
  const std::array<grpc::Slice, 2> slices = {grpc::Slice(EncodeBatchPrefix(bytes.size())),
                                             BorrowingSlice(bytes, owner)};
  return grpc::ByteBuffer(slices.data(), slices.size());
}

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
