#include "common/net/byte_buffer.h"

#include <grpcpp/support/proto_buffer_reader.h>
#include <grpcpp/support/slice.h>

#include <array>
#include <utility>

#include "absl/strings/str_cat.h"

namespace refit {
namespace {

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

}  // namespace refit
