#include "client/trainer/chunk_sender.h"

#include <algorithm>
#include <string>
#include <utility>

#include "common/net/byte_buffer.h"
#include "common/net/messages.h"
#include "common/wire/digest.h"

namespace refit {

// Short chunks are sent over the connection, and so are chunks that would soon fill the ring.
bool ChunkSender::IsShared(uint64_t payload_bytes) const {
  return ring_ != nullptr && payload_bytes >= kShortChunkBytes && payload_bytes <= ring_->bytes() / 4;
}

absl::Status ChunkSender::WaitForWindow(uint64_t payload_bytes) {
  if (window_bytes_ == 0) return absl::OkStatus();
  while (sent_bytes_ != received_bytes_ && sent_bytes_ + payload_bytes - received_bytes_ > window_bytes_) {
    if (absl::Status status = WaitForReceived(); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status ChunkSender::WaitForReceived() {
  v1::PushResponse response;
  if (absl::Status status = stream_.Receive(v1::PushResponse::kReceived, response); !status.ok()) return status;
  received_bytes_ = std::clamp(response.received().bytes(), received_bytes_, sent_bytes_);
  if (ring_ != nullptr) ring_->Release(received_bytes_);
  return absl::OkStatus();
}

absl::StatusOr<ChunkSender::Payload> ChunkSender::Prepare(absl::Span<const std::byte> native, const ShardCast& cast,
                                                          std::shared_ptr<const void> owner) {
  const uint64_t bytes = cast.SentBytes(native.size());
  if (absl::Status status = WaitForWindow(bytes); !status.ok()) return status;
  sent_bytes_ += bytes;
  if (IsShared(bytes)) return Share(native, cast);
  if (cast.is_needed()) return Cast(native, cast);
  return Payload{native, DigestBytes(native), std::nullopt, std::move(owner)};
}

absl::StatusOr<ChunkSender::Payload> ChunkSender::Share(absl::Span<const std::byte> native, const ShardCast& cast) {
  const uint64_t bytes = cast.SentBytes(native.size());
  std::optional<uint64_t> place;
  while (!(place = ring_->Reserve(bytes, sent_bytes_)).has_value()) {
    if (absl::Status status = WaitForReceived(); !status.ok()) return status;
  }
  std::byte* const at = ring_->at(*place);
  return Payload{{at, bytes}, cast.WriteAndDigest(native, at), place, nullptr};
}

absl::StatusOr<ChunkSender::Payload> ChunkSender::Cast(absl::Span<const std::byte> native, const ShardCast& cast) {
  // Buffers are always the same size, so that the pool can reuse one.
  absl::StatusOr<std::shared_ptr<Buffer>> buffer = casts_.Get(chunk_limit_);
  if (!buffer.ok()) return stream_.Fail(buffer.status());
  std::byte* const at = (*buffer)->data();
  return Payload{
      {at, cast.SentBytes(native.size())}, cast.WriteAndDigest(native, at), std::nullopt, *std::move(buffer)};
}

absl::Status ChunkSender::Send(const ChunkHeader& header, Payload payload, absl::string_view tensor) {
  if (payload.place.has_value()) {
    v1::PushRequest request;
    v1::SharedChunk& shared = *request.mutable_shared_chunk();
    ToProto(header, *shared.mutable_chunk());
    shared.set_begin(*payload.place);
    shared.set_bytes(payload.bytes.size());
    return stream_.Send(Serialize(request), tensor);
  }
  if (payload.bytes.size() < kShortChunkBytes) return SendShort(header, payload.bytes, tensor);
  return stream_.Send(payload.owner == nullptr ? CopyChunkMessage(header, payload.bytes)
                                               : MakeChunkMessage(header, payload.bytes, std::move(payload.owner)),
                      tensor);
}

absl::Status ChunkSender::SendShort(const ChunkHeader& header, absl::Span<const std::byte> payload,
                                    absl::string_view tensor) {
  return stream_.SendTogether([&](std::string& entries) { AppendBatchEntry(header, payload, entries); }, tensor);
}

}  // namespace refit
