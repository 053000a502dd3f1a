#include "server/push/chunk_receiver.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "common/net/messages.h"
#include "common/net/received_message.h"
#include "server/access/limit_reached.h"

namespace refit {
namespace {

// More than two, because a window holds at least two chunks: a trainer with half a window free can then always send
// one.
constexpr uint64_t kAcknowledgementsPerWindow = 4;

absl::Status DigestMismatch(const std::string& what, uint64_t expected, uint64_t got) {
  return absl::DataLossError(
      absl::StrFormat("%s: the sender's digest is %016x, the bytes that came give %016x", what, expected, got));
}

// A rank's share of the version's window, but not more than the trainer's shared memory holds: bytes in it must be
// acknowledged before it is full.
uint64_t WindowOf(const PushContext& context, const VersionBuilder& builder, const MappedSegment* segment) {
  const uint64_t share = context.admission.limits.push_window_bytes / builder.version()->identity().world;
  const uint64_t window = std::max(share, 2 * context.store.options().chunk_bytes);
  return segment == nullptr ? window : std::min<uint64_t>(window, segment->span().size());
}

}  // namespace

ChunkReceiver::ChunkReceiver(PushContext& context, VersionBuilder& builder,
                             std::shared_ptr<const MappedSegment> segment, std::string label)
    : context_(context),
      builder_(builder),
      segment_(std::move(segment)),
      label_(std::move(label)),
      window_bytes_(WindowOf(context, builder, segment_.get())),
      digesters_(builder.shards().size()) {}

absl::Status ChunkReceiver::Check(const ChunkHeader& header, uint64_t payload_bytes) const {
  const std::vector<TensorPart>& shards = builder_.shards();
  if (header.tensor >= shards.size()) {
    return absl::InvalidArgumentError(absl::StrCat(label_, ": a chunk for tensor number ", header.tensor, ", but ",
                                                   shards.size(), " tensors were declared"));
  }
  const TensorPart& spec = shards[header.tensor];
  if (header.encoding != v1::CHUNK_ENCODING_RAW) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor ", spec.ToString(), ": chunk encoding ", header.encoding, " is not known; expected RAW"));
  }
  if (header.decoded_bytes != 0 && header.decoded_bytes != payload_bytes) {
    return absl::InvalidArgumentError(absl::StrCat("tensor ", spec.ToString(), ": a RAW chunk of ", payload_bytes,
                                                   " bytes says that it decodes to ", header.decoded_bytes));
  }
  if (const uint64_t most = context_.store.options().chunk_bytes; payload_bytes > most) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor ", spec.ToString(), ": a chunk of ", payload_bytes, " bytes; expected at most ", most));
  }
  if (payload_bytes == 0 && spec.ByteSize() != 0 && !IsDigestAlone(header)) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor ", spec.ToString(), ": an empty chunk at offset ", header.offset));
  }
  return absl::OkStatus();
}

absl::StatusOr<ChunkReceiver::Answer> ChunkReceiver::Take(const ChunkHeader& header, uint64_t payload_bytes,
                                                          absl::FunctionRef<absl::Status()> write) {
  if (absl::Status status = Check(header, payload_bytes); !status.ok()) return status;
  if (builder_.version()->is_streamed()) releases_ = context_.store.memory().releases();
  const absl::StatusOr<bool> has_room = builder_.HasRoom(header.tensor);
  if (!has_room.ok()) return has_room.status();
  if (!*has_room) {
    if (!lacks_memory()) lacks_memory_since_ = Clock::now();
    return std::nullopt;
  }
  lacks_memory_since_.reset();
  if (absl::Status status = write(); !status.ok()) return status;
  return Acknowledge(payload_bytes);
}

absl::StatusOr<ChunkReceiver::Answer> ChunkReceiver::Handle(const DecodedChunk& chunk, const ReceivedMessage& message) {
  return Take(chunk.header, chunk.payload_bytes, [&]() -> absl::Status {
    // Borrowed for this chunk only. The next chunk, of any stream, reuses the block while it is still in the cache.
    const absl::StatusOr<std::shared_ptr<Buffer>> scratch = context_.scratch.Get(context_.store.options().chunk_bytes);
    if (!scratch.ok()) return scratch.status();
    const uint64_t digest = message.CopyAndDigest(chunk.payload_offset, (*scratch)->data());
    return AppendVerified(chunk.header, digest, absl::MakeConstSpan((*scratch)->data(), chunk.payload_bytes));
  });
}

absl::StatusOr<ChunkReceiver::Answer> ChunkReceiver::Handle(const ChunkView& chunk) {
  return Take(chunk.header, chunk.payload.size(),
              [&] { return AppendVerified(chunk.header, DigestBytes(chunk.payload), chunk.payload); });
}

absl::StatusOr<ChunkReceiver::Answer> ChunkReceiver::HandleBatch(absl::Span<const ChunkView> batch) {
  Answer last;
  for (; batch_next_ < batch.size(); ++batch_next_) {
    const ChunkView& chunk = batch[batch_next_];
    absl::StatusOr<Answer> answer = Handle(chunk);
    if (!answer.ok()) return answer;
    if (answer->has_value()) last = *std::move(answer);
    if (lacks_memory()) return last;  // and continues here later
  }
  batch_next_ = 0;
  return last;
}

absl::StatusOr<ChunkReceiver::Answer> ChunkReceiver::HandleShared(const v1::SharedChunk& shared) {
  const uint64_t size = segment_->span().size();
  if (shared.begin() > size || shared.bytes() > size - shared.begin() || !shared.chunk().payload().empty()) {
    return absl::InvalidArgumentError(absl::StrCat(label_, ": a chunk of ", shared.bytes(), " bytes at ",
                                                   shared.begin(), " of shared memory that has ", size,
                                                   shared.chunk().payload().empty() ? "" : ", with a payload besides"));
  }
  const ChunkHeader header = HeaderOf(shared.chunk());
  return Take(header, shared.bytes(), [&] {
    const absl::Span<const std::byte> payload = segment_->span().subspan(shared.begin(), shared.bytes());
    return AppendVerified(header, DigestBytes(payload), payload);
  });
}

absl::Status ChunkReceiver::AppendVerified(const ChunkHeader& header, uint64_t got_digest,
                                           absl::Span<const std::byte> payload) {
  const TensorPart& spec = builder_.shards()[header.tensor];
  if (got_digest != header.digest) {
    return DigestMismatch(absl::StrCat("tensor ", spec.ToString(), ", chunk at offset ", header.offset), header.digest,
                          got_digest);
  }
  if (payload.empty() && IsDigestAlone(header)) return builder_.Finish(header.tensor, *header.tensor_digest);
  if (absl::Status status = builder_.Append(header.tensor, header.offset, payload); !status.ok()) return status;
  return CheckTensorDigest(header, payload);
}

absl::Status ChunkReceiver::CheckTensorDigest(const ChunkHeader& header, absl::Span<const std::byte> payload) {
  const TensorPart& spec = builder_.shards()[header.tensor];
  const bool ends = header.offset + payload.size() == spec.ByteSize();
  std::optional<TensorDigester>& digester = digesters_[header.tensor];
  if (!digester.has_value()) digester.emplace(context_.store.options().chunk_bytes);
  digester->UpdateChunk(payload, header.digest, ends);
  if (!ends) {
    if (!header.tensor_digest.has_value()) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat("tensor ", spec.ToString(), ": the chunk at offset ", header.offset,
                                                   " carries the tensor digest, but does not end the tensor"));
  }
  const uint64_t got = digester->Finish();
  digester.reset();
  if (!header.tensor_digest.has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor ", spec.ToString(), ": its last chunk carries no tensor digest"));
  }
  if (*header.tensor_digest != got)
    return DigestMismatch(absl::StrCat("tensor ", spec.ToString()), *header.tensor_digest, got);
  return builder_.Finish(header.tensor, got);
}

bool ChunkReceiver::IsDigestAlone(const ChunkHeader& header) const {
  return digests_alone_ && header.offset == 0 && header.tensor_digest.has_value() &&
         builder_.received(header.tensor) == 0 && builder_.is_digest_only(header.tensor);
}

ChunkReceiver::Answer ChunkReceiver::Acknowledge(uint64_t payload_bytes) {
  handled_bytes_ += payload_bytes;
  context_.admission.counters.received_bytes += payload_bytes;
  if (handled_bytes_ - acknowledged_bytes_ < window_bytes_ / kAcknowledgementsPerWindow) return std::nullopt;
  acknowledged_bytes_ = handled_bytes_;
  v1::PushResponse response;
  response.mutable_received()->set_bytes(handled_bytes_);
  return response;
}

absl::Status ChunkReceiver::CheckPatience() const {
  if (!lacks_memory()) return absl::OkStatus();
  const absl::Duration patience = absl::FromChrono(context_.admission.limits.worker_timeout);
  if (Clock::now() - *lacks_memory_since_ < context_.admission.limits.worker_timeout) return absl::OkStatus();
  return absl::DeadlineExceededError(absl::StrCat(
      label_, ": the memory is full, and workers took nothing for ", absl::FormatDuration(patience),
      ", which is the limit (--worker-timeout); a streamed version needs ", context_.store.options().stream_to,
      " of them that pull it while it is pushed, and memory for all tensors between the ones that ranks push and that "
      "workers take. If workers may be busy for so long, ",
      HowToRaise("worker_timeout")));
}

void ChunkReceiver::Overslept(Clock::duration time) {
  if (lacks_memory()) *lacks_memory_since_ += time;
}

}  // namespace refit
