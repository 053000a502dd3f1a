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

absl::StatusOr<ChunkSender::Payload> ChunkSender::Prepare(absl::Span<const std::byte> bytes) {
  if (absl::Status status = WaitForWindow(bytes.size()); !status.ok()) return status;
  sent_bytes_ += bytes.size();
  if (!IsShared(bytes.size())) return Payload{bytes, DigestBytes(bytes), std::nullopt};
  std::optional<uint64_t> place;
  while (!(place = ring_->Reserve(bytes.size(), sent_bytes_)).has_value()) {
    if (absl::Status status = WaitForReceived(); !status.ok()) return status;
  }
  return Payload{bytes, CopyAndDigest(bytes, ring_->at(*place)), place};
}

absl::Status ChunkSender::Send(const ChunkHeader& header, const Payload& payload, std::shared_ptr<const void> owner,
                               absl::string_view tensor) {
  if (payload.place.has_value()) {
    v1::PushRequest request;
    v1::SharedChunk& shared = *request.mutable_shared_chunk();
    ToProto(header, *shared.mutable_chunk());
    shared.set_begin(*payload.place);
    shared.set_bytes(payload.bytes.size());
    return stream_.Send(Serialize(request), tensor);
  }
  if (payload.bytes.size() < kShortChunkBytes) return SendShort(header, payload.bytes, tensor);
  return stream_.Send(owner == nullptr ? CopyChunkMessage(header, payload.bytes)
                                       : MakeChunkMessage(header, payload.bytes, std::move(owner)),
                      tensor);
}

absl::Status ChunkSender::SendShort(const ChunkHeader& header, absl::Span<const std::byte> payload,
                                    absl::string_view tensor) {
  return stream_.SendTogether([&](std::string& entries) { AppendBatchEntry(header, payload, entries); }, tensor);
}

}  // namespace refit
