#include "client/worker/pull_receiver.h"

#include <google/protobuf/arena.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/worker/pull_header.h"
#include "common/net/byte_buffer.h"
#include "common/net/messages.h"
#include "common/net/received_message.h"
#include "common/net/status.h"
#include "common/net/version_summary.h"
#include "common/tensor/kernels.h"

namespace refit {
namespace {

uint64_t DecodedBytes(const ChunkHeader& chunk, uint64_t payload_bytes) {
  return chunk.encoding == v1::CHUNK_ENCODING_RAW ? payload_bytes : chunk.decoded_bytes;
}

}  // namespace

PullReceiver::PullReceiver(const PullOptions& options, std::string context, TensorSink& sink)
    : options_(options), errors_(std::move(context)), sink_(sink), manifest_(options, errors_), base_(options.base) {}

void PullReceiver::BeginStream(std::shared_ptr<const Lease> lease, DescriptorClient descriptors, std::string context) {
  lease_ = std::move(lease);
  segments_.Begin(std::move(descriptors));
  errors_.SetContext(std::move(context));
  chunk_was_damaged_ = false;
  could_not_map_ = false;
  is_behind_ = false;
  base_failed_ = false;
  deltas_.reset();
  resumes_ = phase_ == Phase::kChunks;
  if (resumes_) return;
  phase_ = Phase::kHeader;
  manifest_.Clear();
}

std::optional<PullReceiver::Place> PullReceiver::place() const {
  if (phase_ != Phase::kChunks) return std::nullopt;
  Place place;
  place.version = KeyOf(version_);
  place.cursor.set_tensor(tensor_);
  place.cursor.set_offset(offset_);
  return place;
}

void PullReceiver::RefuseBase(std::string reason) {
  base_ = nullptr;
  traffic_.base_refused = std::move(reason);
  if (has_deltas_) {
    again_ = std::max(again_, offset_);
    received_bytes_ -= offset_;
    offset_ = 0;
  }
}

absl::Status PullReceiver::OnMessage(const grpc::ByteBuffer& buffer) {
  const ReceivedMessage message(buffer);
  const absl::StatusOr<std::optional<DecodedChunk>> chunk = message.DecodeChunk();
  if (!chunk.ok()) return errors_.Breach(chunk.status().message());
  if (chunk->has_value()) {
    return OnChunk((*chunk)->header, (*chunk)->payload_bytes, [&](std::byte* dst) {
      using Through = ReceivedMessage::Through;
      const bool hot =
          memory_.size() < kPastCacheBytes || takes_chunks_ || (*chunk)->header.encoding != v1::CHUNK_ENCODING_RAW;
      const Through through = hot ? Through::kCache : Through::kPastCache;
      return message.CopyAndDigest((*chunk)->payload_offset, dst, through);
    });
  }
  if (const auto batch = message.DecodeBatch(); batch.has_value()) return OnBatch(*batch);
  google::protobuf::Arena arena;  // a manifest may have very many small entries
  v1::PullResponse& response = *google::protobuf::Arena::CreateMessage<v1::PullResponse>(&arena);
  if (absl::Status status = Parse(message.buffer(), response); !status.ok()) return errors_.Breach(status.message());
  return OnResponse(response);
}

absl::Status PullReceiver::OnResponse(const v1::PullResponse& response) {
  switch (response.response_case()) {
    case v1::PullResponse::kHeader:
      return OnHeader(response.header());
    case v1::PullResponse::kManifest:
      return OnManifest(response.manifest());
    case v1::PullResponse::kCommitted:
      return OnCommitted(response.committed());
    case v1::PullResponse::kWaiting:
      return absl::OkStatus();      // it only shows that the service is alive
    case v1::PullResponse::kChunk:  // from an encoder with another order of fields
      return OnChunk(ViewOf(response.chunk()));
    case v1::PullResponse::kChunks:
      return OnBatch(ViewsOf(response.chunks()));
    case v1::PullResponse::kSharedChunk:
      return OnSharedChunk(response.shared_chunk());
    case v1::PullResponse::RESPONSE_NOT_SET:
      break;
  }
  return errors_.Breach("a message of no known kind");
}

absl::Status PullReceiver::OnChunk(const ChunkView& chunk) {
  return OnChunk(chunk.header, chunk.payload.size(), [&chunk](std::byte* dst) {
    // An empty tensor may have no memory.
    if (!chunk.payload.empty()) std::memcpy(dst, chunk.payload.data(), chunk.payload.size());
    return DigestBytes({dst, chunk.payload.size()});
  });
}

absl::Status PullReceiver::OnBatch(absl::Span<const ChunkView> batch) {
  for (const ChunkView& chunk : batch) {
    if (absl::Status status = OnChunk(chunk); !status.ok()) return status;
  }
  return absl::OkStatus();
}

// After an abort, or after the service has lost the version, another version may be pushed under its number. What was
// received so far is then useless.
absl::Status PullReceiver::OnHeaderAgain(const v1::VersionSummary& header) {
  resumes_ = false;
  if (IsSameVersion(header, version_)) {
    version_ = FromProto(header);
    return absl::OkStatus();
  }
  return absl::AbortedError(absl::StrCat(errors_.context(), ": while the pull was cut, version ", version_.version,
                                         " was replaced by another"));
}

// Whether the service sends deltas in this stream.
absl::Status PullReceiver::NoteBase(const v1::VersionSummary& header) {
  if (base_ == nullptr) {
    return header.has_base_version() ? errors_.Breach("a header with a base that was not named") : absl::OkStatus();
  }
  if (!header.base_refused().empty()) traffic_.base_refused = Printable(header.base_refused());
  if (!header.has_base_version()) return absl::OkStatus();
  if (header.base_version() != base_->version) {
    return errors_.Breach(absl::StrCat("a header with base ", header.base_version(), " in place of ", base_->version));
  }
  traffic_.base_version = base_->version;
  deltas_.emplace(*base_);
  return absl::OkStatus();
}

absl::Status PullReceiver::OnHeader(const v1::VersionSummary& header) {
  if (absl::Status status = NoteBase(header); !status.ok()) return status;
  if (resumes_) return OnHeaderAgain(header);
  if (phase_ != Phase::kHeader) return errors_.Breach("a second header");
  if (absl::Status status = CheckHeader(header, options_, errors_); !status.ok()) return status;
  if (at_least_.has_value() && !options_.version.has_value() && KeyOf(header) < *at_least_) {
    is_behind_ = true;
    return absl::NotFoundError(absl::StrCat(errors_.context(), ": the service is behind: its newest is ",
                                            Describe(KeyOf(header)), ", ", Describe(*at_least_), " was seen already"));
  }
  version_ = FromProto(header);
  phase_ = Phase::kManifest;
  return absl::OkStatus();
}

absl::Status PullReceiver::OnManifest(const v1::ManifestPart& part) {
  if (phase_ != Phase::kManifest) return errors_.Breach("a manifest out of place");
  if (absl::Status status = manifest_.Add(part, version_); !status.ok()) return status;
  if (!part.last()) return absl::OkStatus();
  phase_ = Phase::kChunks;
  if (absl::Status status = sink_.Begin(version_, parts()); !status.ok()) return status;
  takes_chunks_ = deltas_.has_value() && sink_.TakesChunks();
  return absl::OkStatus();
}

absl::Status PullReceiver::CheckChunk(const ChunkHeader& chunk, uint64_t payload_bytes) const {
  if (phase_ != Phase::kChunks || resumes_) return errors_.Breach("a chunk out of place");
  if (tensor_ == parts().size()) return errors_.Breach("a chunk after the last tensor's end");
  const TensorPart& part = parts()[tensor_];
  if (chunk.tensor != tensor_ || chunk.offset != offset_) {
    return errors_.Breach(absl::StrCat("a chunk of tensor number ", chunk.tensor, " at offset ", chunk.offset,
                                       "; expected number ", tensor_, " (", part.ToString(), ") at offset ", offset_));
  }
  if (absl::Status status = CheckEncoding(chunk, payload_bytes); !status.ok()) return status;
  const uint64_t bytes = DecodedBytes(chunk, payload_bytes);
  const uint64_t rest = part.ByteSize() - offset_;
  if (bytes > rest) return BadChunk(absl::StrCat(bytes, " bytes, but the tensor lacks ", rest));
  if (bytes == 0 && rest != 0) return BadChunk(absl::StrCat("it is empty, but the tensor lacks ", rest, " bytes"));
  if (chunk.tensor_digest.has_value() != (bytes == rest)) {
    return BadChunk(bytes == rest ? "it ends the tensor without a tensor digest"
                                  : "a tensor digest, but it does not end the tensor");
  }
  return absl::OkStatus();
}

absl::Status PullReceiver::CheckEncoding(const ChunkHeader& chunk, uint64_t payload_bytes) const {
  switch (chunk.encoding) {
    case v1::CHUNK_ENCODING_RAW:
      if (chunk.decoded_bytes == 0 || chunk.decoded_bytes == payload_bytes) return absl::OkStatus();
      return BadChunk(absl::StrCat("raw, but of ", chunk.decoded_bytes, " bytes made from ", payload_bytes));
    case v1::CHUNK_ENCODING_DELTA:
      if (!deltas_.has_value()) return BadChunk("a delta, but the header has no base");
      return chunk.decoded_bytes != 0 ? absl::OkStatus() : BadChunk("a delta of nothing");
    default:
      return BadChunk(absl::StrCat("encoding ", chunk.encoding, " was not asked for"));
  }
}

absl::Status PullReceiver::BadChunk(absl::string_view what) const {
  return errors_.Breach(
      absl::StrCat("tensor ", parts()[tensor_].ToString(), ", chunk at offset ", offset_, ": ", what));
}

absl::Status PullReceiver::BeginTensor() {
  const TensorPart& part = parts()[tensor_];
  digester_.emplace(version_.chunk_bytes);
  has_deltas_ = false;
  if (std::exchange(placed_, true)) return absl::OkStatus();
  const absl::StatusOr<absl::Span<std::byte>> memory = sink_.Place(tensor_);
  if (!memory.ok()) return memory.status();
  if (memory->size() != part.ByteSize()) {
    return absl::InvalidArgumentError(absl::StrCat(errors_.context(), ": the sink has ", memory->size(),
                                                   " bytes for tensor ", part.ToString(), "; expected ",
                                                   part.ByteSize()));
  }
  memory_ = *memory;
  return absl::OkStatus();
}

absl::Status PullReceiver::OnChunk(const ChunkHeader& chunk, uint64_t payload_bytes, const Copy& copy) {
  if (absl::Status status = CheckChunk(chunk, payload_bytes); !status.ok()) return status;
  if (offset_ == 0) {
    if (absl::Status status = BeginTensor(); !status.ok()) return status;
  }
  ++(chunk.encoding == v1::CHUNK_ENCODING_RAW ? traffic_.raw_chunks
     : payload_bytes == 0                     ? traffic_.unchanged_chunks
                                              : traffic_.delta_chunks);
  traffic_.wire_bytes += payload_bytes;
  return AddChunk(chunk, payload_bytes, copy);
}

// Makes the segment of the chunk the current one, and checks that the chunk lies in it.
absl::Status PullReceiver::EnterSegment(const v1::SharedChunk& shared) {
  if (absl::Status status = segments_.Enter(shared.segment()); !status.ok()) {
    could_not_map_ = true;
    return Annotate(status, errors_.context());
  }
  const uint64_t size = segments_.current()->span().size();
  if (shared.begin() <= size && shared.bytes() <= size - shared.begin()) return absl::OkStatus();
  return errors_.Breach(
      absl::StrCat("a chunk of ", shared.bytes(), " bytes at ", shared.begin(), " of shared memory that has ", size));
}

// The tensor begins at `begin` of the current segment. If the sink does not adopt it, it is copied as usual.
absl::Status PullReceiver::BeginSharedTensor(uint64_t begin) {
  const uint64_t bytes = parts()[tensor_].ByteSize();
  if (lease_ == nullptr || bytes > segments_.current()->span().size() - begin) return BeginTensor();
  const auto mapped = std::make_shared<LeasedBuffer>(segments_.current(), begin, bytes, lease_);
  if (placed_ || takes_chunks_ || !sink_.Adopt(tensor_, mapped)) return BeginTensor();
  memory_ = mapped->span();
  digester_.emplace(version_.chunk_bytes);
  return absl::OkStatus();
}

absl::Status PullReceiver::OnSharedChunk(const v1::SharedChunk& shared) {
  const ChunkHeader chunk = HeaderOf(shared.chunk());
  if (chunk.encoding != v1::CHUNK_ENCODING_RAW) return errors_.Breach("a delta in shared memory");
  if (absl::Status status = CheckChunk(chunk, shared.bytes()); !status.ok()) return status;
  if (absl::Status status = EnterSegment(shared); !status.ok()) return status;
  if (offset_ == 0) {
    if (absl::Status status = BeginSharedTensor(shared.begin()); !status.ok()) return status;
  }
  ++traffic_.raw_chunks;
  traffic_.wire_bytes += shared.bytes();
  const absl::Span<const std::byte> payload = segments_.current()->span().subspan(shared.begin(), shared.bytes());
  return AddChunk(chunk, payload.size(), [&](std::byte* dst) {
    if (dst != payload.data()) return CopyAndDigest(payload, dst);
    traffic_.mapped_bytes += payload.size();
    return DigestBytes(payload);
  });
}

// The payload is checked before anything is done with it.
absl::Status PullReceiver::AddChunk(const ChunkHeader& chunk, uint64_t payload_bytes, const Copy& copy) {
  const bool is_delta = chunk.encoding != v1::CHUNK_ENCODING_RAW;
  const bool apart = is_delta || takes_chunks_;
  if (apart && payload_.size() < payload_bytes) payload_.resize(payload_bytes);
  const absl::Span<std::byte> payload =
      apart ? absl::MakeSpan(payload_).first(payload_bytes) : memory_.subspan(offset_, payload_bytes);
  const uint64_t digest = copy(payload.data());
  if (digest != chunk.digest) return Damaged(chunk, digest);
  const PulledChunk pulled = {tensor_, offset_, DecodedBytes(chunk, payload_bytes), is_delta, payload};
  if (is_delta) {
    if (absl::Status status = AddDelta(pulled); !status.ok()) return status;
  } else {
    digester_->UpdateChunk(payload, digest, chunk.tensor_digest.has_value());
  }
  if (takes_chunks_) {
    if (absl::Status status = sink_.Take(pulled); !status.ok()) return status;
  }
  return Advance(chunk, pulled.bytes);
}

// If the base is another one than the service's, the tensor's digest tells.
absl::Status PullReceiver::AddDelta(const PulledChunk& delta) {
  has_deltas_ = true;
  std::byte* const result = takes_chunks_ ? nullptr : memory_.data() + offset_;
  const absl::StatusOr<uint64_t> changed = deltas_->Apply(parts()[tensor_], delta, result, *digester_);
  if (!changed.ok()) {
    base_failed_ = true;
    return BadChunk(changed.status().message());
  }
  traffic_.changed_elements += *changed;
  return absl::OkStatus();
}

absl::Status PullReceiver::Damaged(const ChunkHeader& chunk, uint64_t digest) {
  chunk_was_damaged_ = true;
  return errors_.Mismatch(absl::StrCat("tensor ", parts()[tensor_].ToString(), ", chunk at offset ", offset_),
                          chunk.digest, digest);
}

absl::Status PullReceiver::Advance(const ChunkHeader& chunk, uint64_t bytes) {
  offset_ += bytes;
  received_bytes_ += bytes;
  const uint64_t again = std::min(again_, bytes);
  again_ -= again;
  sink_.Progress(bytes - again);
  return chunk.tensor_digest.has_value() ? EndTensor(*chunk.tensor_digest) : absl::OkStatus();
}

absl::Status PullReceiver::EndTensor(uint64_t expected_digest) {
  const TensorPart& part = parts()[tensor_];
  const uint64_t digest = digester_->Finish();
  if (digest != expected_digest) {
    base_failed_ = has_deltas_;
    return errors_.Mismatch(absl::StrCat("tensor ", part.ToString()), expected_digest, digest);
  }
  manifest_digester_.Add(part, digest);
  offset_ = 0;
  placed_ = false;
  has_deltas_ = false;
  return sink_.Done(tensor_++);
}

absl::Status PullReceiver::OnCommitted(const v1::PullCommitted& committed) {
  if (phase_ != Phase::kChunks || resumes_) return errors_.Breach("the commit marker out of place");
  if (tensor_ != parts().size()) {
    return errors_.Breach(absl::StrCat("the commit marker came while tensor ", parts()[tensor_].ToString(),
                                       " stands at ", offset_, " bytes"));
  }
  const v1::VersionSummary& summary = committed.summary();
  if (summary.model() != version_.model || summary.version() != version_.version ||
      summary.state() != v1::VERSION_STATE_COMMITTED || !summary.has_manifest_digest()) {
    return errors_.Breach(absl::StrCat("the commit marker is of ", Printable(summary.model()), "/", summary.version(),
                                       " in state ", v1::VersionState_Name(summary.state()),
                                       summary.has_manifest_digest() ? "" : ", without manifest digest"));
  }
  const uint64_t digest = manifest_digester_.Finish();
  if (committed.selection_digest() != digest) {
    return errors_.Mismatch("the tensors selected", committed.selection_digest(), digest);
  }
  if (manifest_.selects_all() && summary.manifest_digest() != digest) {
    return errors_.Mismatch("the manifest", summary.manifest_digest(), digest);
  }
  version_ = FromProto(summary);
  selection_digest_ = digest;
  lease_number_ = committed.lease();
  skipped_.assign(committed.skipped().begin(), committed.skipped().end());
  phase_ = Phase::kCommitted;
  return absl::OkStatus();
}

absl::Status PullReceiver::OnEnd() const {
  if (phase_ == Phase::kCommitted) return absl::OkStatus();
  return errors_.Breach(
      absl::StrCat("the stream ended without the commit marker, after ", tensor_, " of ", parts().size(), " tensors"));
}

PullResult PullReceiver::result() const {
  PullResult result;
  result.version = version_;
  result.tensors = parts().size();
  result.bytes = received_bytes_;
  result.traffic = traffic_;
  result.selection_digest = selection_digest_;
  result.skipped = skipped_;
  return result;
}

}  // namespace refit
