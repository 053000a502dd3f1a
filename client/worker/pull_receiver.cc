#include "client/worker/pull_receiver.h"

#include <google/protobuf/arena.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/net/byte_buffer.h"
#include "common/net/messages.h"
#include "common/net/status.h"
#include "common/tensor/kernels.h"
#include "common/tensor/slab.h"

namespace refit {

PullReceiver::PullReceiver(const PullOptions& options, std::string context, TensorSink& sink)
    : options_(options),
      context_(std::move(context)),
      sink_(sink),
      boxes_(options.boxes.begin(), options.boxes.end()) {}

void PullReceiver::BeginStream(std::shared_ptr<const Lease> lease) {
  lease_ = std::move(lease);
  segment_.reset();
  segments_.clear();
  chunk_was_damaged_ = false;
  could_not_map_ = false;
  resumes_ = phase_ == Phase::kChunks;
  if (resumes_) return;
  phase_ = Phase::kHeader;
  parts_.clear();
  manifest_bytes_ = 0;
}

std::optional<PullReceiver::Place> PullReceiver::place() const {
  if (phase_ != Phase::kChunks) return std::nullopt;
  Place place;
  place.version = KeyOf(version_);
  place.cursor.set_tensor(tensor_);
  place.cursor.set_offset(offset_);
  return place;
}

absl::Status PullReceiver::Breach(absl::string_view what) const {
  return absl::InternalError(absl::StrCat(context_, ": the service broke the protocol: ", what));
}

absl::Status PullReceiver::Mismatch(absl::string_view what, uint64_t expected, uint64_t got) const {
  return absl::DataLossError(
      absl::StrFormat("%s: %s: its digest is %016x, the bytes received have %016x", context_, what, expected, got));
}

bool PullReceiver::SelectsAllTensors() const { return options_.filter.empty() && options_.names.empty(); }

bool PullReceiver::AsksForParts() const { return !options_.rules.empty() || !options_.boxes.empty(); }

bool PullReceiver::SelectsAll() const { return SelectsAllTensors() && !AsksForParts(); }

absl::Status PullReceiver::OnMessage(const grpc::ByteBuffer& buffer) {
  const ReceivedMessage message(buffer);
  const absl::StatusOr<std::optional<DecodedChunk>> chunk = message.DecodeChunk();
  if (!chunk.ok()) return Breach(chunk.status().message());
  if (chunk->has_value()) {
    return OnChunk((*chunk)->header, (*chunk)->payload_bytes, [&](std::byte* dst) {
      using Through = ReceivedMessage::Through;
      const Through through = memory_.size() < kPastCacheBytes ? Through::kCache : Through::kPastCache;
      return message.CopyAndDigest((*chunk)->payload_offset, dst, through);
    });
  }
  if (const auto batch = message.DecodeBatch(); batch.has_value()) return OnBatch(*batch);
  google::protobuf::Arena arena;  // a manifest has very many small entries
  v1::PullResponse& response = *google::protobuf::Arena::CreateMessage<v1::PullResponse>(&arena);
  if (absl::Status status = Parse(message.buffer(), response); !status.ok()) return Breach(status.message());
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
      return absl::OkStatus();      // it has shown that the service lives
    case v1::PullResponse::kChunk:  // from an encoder that orders fields otherwise
      return OnChunk(ViewOf(response.chunk()));
    case v1::PullResponse::kChunks:
      return OnBatch(ViewsOf(response.chunks()));
    case v1::PullResponse::kSharedChunk:
      return OnSharedChunk(response.shared_chunk());
    case v1::PullResponse::RESPONSE_NOT_SET:
      break;
  }
  return Breach("a message of no known kind");
}

absl::Status PullReceiver::OnChunk(const ChunkView& chunk) {
  return OnChunk(chunk.header, chunk.payload.size(), [&chunk](std::byte* dst) {
    // An empty tensor may have no memory at all.
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

// A number may be pushed anew after the version was aborted, or its service lost it: what is here already is then of no
// use.
absl::Status PullReceiver::OnHeaderAgain(const v1::VersionSummary& header) {
  resumes_ = false;
  const bool same = header.model() == version_.model() && header.version() == version_.version() &&
                    header.tensors() == version_.tensors() && header.bytes() == version_.bytes() &&
                    header.chunk_bytes() == version_.chunk_bytes() && header.opened_at_ns() == version_.opened_at_ns();
  if (same) return absl::OkStatus();
  return absl::AbortedError(
      absl::StrCat(context_, ": while the pull was cut, version ", version_.version(), " was replaced by another"));
}

absl::Status PullReceiver::OnHeader(const v1::VersionSummary& header) {
  if (resumes_) return OnHeaderAgain(header);
  if (phase_ != Phase::kHeader) return Breach("a second header");
  if (header.model() != options_.model || (options_.version.has_value() && header.version() != *options_.version)) {
    return Breach(absl::StrCat("it sends version ", Printable(header.model()), "/", header.version()));
  }
  if (options_.trainer_epoch.has_value() && header.trainer_epoch() != *options_.trainer_epoch) {
    // From a service that does not know what was asked for.
    return absl::NotFoundError(absl::StrCat(context_, ": the service has ", Describe(KeyOf(header)), ", not of epoch ",
                                            *options_.trainer_epoch));
  }
  if (header.chunk_bytes() == 0) return Breach("a header with chunk_bytes 0");
  if (header.layout() != v1::LAYOUT_WHOLE || header.has_base_version()) {
    return Breach(absl::StrCat("layout ", header.layout(), header.has_base_version() ? " with a base version" : "",
                               ", which was not asked for"));
  }
  version_ = header;
  phase_ = Phase::kManifest;
  return absl::OkStatus();
}

absl::Status PullReceiver::OnManifest(const v1::ManifestPart& part) {
  if (phase_ != Phase::kManifest) return Breach("a manifest out of place");
  if (part.first() != parts_.size()) {
    return Breach(absl::StrCat("a part of the manifest from entry ", part.first(), " on; expected ", parts_.size()));
  }
  for (const v1::ManifestEntry& entry : part.entries()) {
    if (absl::Status status = OnManifestEntry(entry); !status.ok()) return status;
  }
  return part.last() ? OnManifestEnd() : absl::OkStatus();
}

absl::StatusOr<TensorPart> PullReceiver::PartOf(const v1::ManifestEntry& entry) const {
  absl::StatusOr<TensorSpec> spec = FromProto(entry.tensor(), std::numeric_limits<size_t>::max());
  if (!spec.ok()) return Breach(absl::StrCat("a bad entry in the manifest: ", spec.status().message()));
  if (!entry.has_box()) return TensorPart::Whole(*std::move(spec));
  if (!AsksForParts()) return Breach(absl::StrCat("the manifest has a part of tensor ", spec->ToString(), " only"));
  TensorPart part{*std::move(spec), FromProto(entry.box())};
  if (absl::Status status = Validate(part.box, part.tensor.shape); !status.ok()) {
    return Breach(absl::StrCat("a bad entry in the manifest: tensor ", part.tensor.ToString(), ": ", status.message()));
  }
  return part;
}

absl::Status PullReceiver::CheckAskedFor(const TensorPart& part) const {
  const auto asked = boxes_.find(part.tensor.name);
  if (asked != boxes_.end()) {
    if (part.box == asked->second) return absl::OkStatus();
    return Breach(absl::StrCat("the manifest has box ", ToString(part.box), " of tensor ", part.tensor.ToString(),
                               "; another was asked for"));
  }
  if (!options_.rules.empty() || part.is_whole()) return absl::OkStatus();
  return Breach(absl::StrCat("the manifest has a part of tensor ", part.ToString(), " only; all was asked for"));
}

absl::Status PullReceiver::OnManifestEntry(const v1::ManifestEntry& entry) {
  absl::StatusOr<TensorPart> part = PartOf(entry);
  if (!part.ok()) return part.status();
  if (absl::Status status = CheckAskedFor(*part); !status.ok()) return status;
  const uint64_t bytes = part->ByteSize();
  if (entry.bytes() != bytes) {
    return Breach(
        absl::StrCat("the manifest gives tensor ", part->ToString(), " ", entry.bytes(), " bytes; expected ", bytes));
  }
  if (parts_.size() == version_.tensors() || bytes > version_.bytes() - manifest_bytes_) {
    return Breach(absl::StrCat("the manifest has more than the header's ", version_.tensors(), " tensors of ",
                               version_.bytes(), " bytes"));
  }
  manifest_bytes_ += bytes;
  parts_.push_back(*std::move(part));
  return absl::OkStatus();
}

absl::Status PullReceiver::CheckManifest() const {
  absl::flat_hash_set<absl::string_view> names;
  names.reserve(parts_.size());
  for (const TensorPart& part : parts_) {
    if (names.insert(part.tensor.name).second) continue;
    return Breach(absl::StrCat("the manifest has tensor ", Printable(part.tensor.name), " twice"));
  }
  if (!SelectsAllTensors()) return absl::OkStatus();
  if (parts_.size() != version_.tensors() || (SelectsAll() && manifest_bytes_ != version_.bytes())) {
    return Breach(absl::StrCat("the manifest has ", parts_.size(), " tensors of ", manifest_bytes_,
                               " bytes, its header says ", version_.tensors(), " of ", version_.bytes()));
  }
  for (const auto& [name, box] : boxes_) {
    if (names.count(name) > 0) continue;
    return Breach(absl::StrCat("the manifest lacks tensor ", Printable(name), ", of which a box was asked for"));
  }
  return absl::OkStatus();
}

absl::Status PullReceiver::OnManifestEnd() {
  if (absl::Status status = CheckManifest(); !status.ok()) return status;
  phase_ = Phase::kChunks;
  return sink_.Begin(version_, parts_);
}

absl::Status PullReceiver::CheckChunk(const ChunkHeader& chunk, uint64_t payload_bytes) const {
  if (phase_ != Phase::kChunks || resumes_) return Breach("a chunk out of place");
  if (tensor_ == parts_.size()) return Breach("a chunk after the last tensor's end");
  const TensorPart& part = parts_[tensor_];
  if (chunk.tensor != tensor_ || chunk.offset != offset_) {
    return Breach(absl::StrCat("a chunk of tensor number ", chunk.tensor, " at offset ", chunk.offset,
                               "; expected number ", tensor_, " (", part.ToString(), ") at offset ", offset_));
  }
  const auto bad = [&](const auto&... what) {
    return Breach(absl::StrCat("tensor ", part.ToString(), ", chunk at offset ", offset_, ": ", what...));
  };
  if (chunk.encoding != v1::CHUNK_ENCODING_RAW) return bad("encoding ", chunk.encoding, " was not asked for");
  if (chunk.decoded_bytes != 0 && chunk.decoded_bytes != payload_bytes) {
    return bad("raw, but of ", chunk.decoded_bytes, " bytes made from ", payload_bytes);
  }
  const uint64_t rest = part.ByteSize() - offset_;
  if (payload_bytes > rest) return bad(payload_bytes, " bytes, but the tensor lacks ", rest);
  if (payload_bytes == 0 && rest != 0) return bad("it is empty, but the tensor lacks ", rest, " bytes");
  if (chunk.tensor_digest.has_value() != (payload_bytes == rest)) {
    return bad(payload_bytes == rest ? "it ends the tensor without a tensor digest"
                                     : "a tensor digest, but it does not end the tensor");
  }
  return absl::OkStatus();
}

absl::Status PullReceiver::BeginTensor() {
  const TensorPart& part = parts_[tensor_];
  const absl::StatusOr<absl::Span<std::byte>> memory = sink_.Place(tensor_);
  if (!memory.ok()) return memory.status();
  if (memory->size() != part.ByteSize()) {
    return absl::InvalidArgumentError(absl::StrCat(context_, ": the sink has ", memory->size(), " bytes for tensor ",
                                                   part.ToString(), "; expected ", part.ByteSize()));
  }
  memory_ = *memory;
  digester_.emplace(version_.chunk_bytes());
  return absl::OkStatus();
}

absl::Status PullReceiver::OnChunk(const ChunkHeader& chunk, uint64_t payload_bytes, const Copy& copy) {
  if (absl::Status status = CheckChunk(chunk, payload_bytes); !status.ok()) return status;
  if (offset_ == 0) {
    if (absl::Status status = BeginTensor(); !status.ok()) return status;
  }
  return AddChunk(chunk, payload_bytes, copy);
}

absl::Status PullReceiver::MapAnother(const v1::SharedSegment& announced) {
  absl::StatusOr<std::shared_ptr<MappedSegment>> mapped = MappedSegment::Open(announced);
  if (!mapped.ok()) {
    could_not_map_ = true;
    return Annotate(mapped.status(), context_);
  }
  segment_ = *std::move(mapped);
  segments_.push_back(segment_);
  // Of a service that has a segment for each tensor, the oldest are not asked for again.
  if (segments_.size() > SlabPlan::kMostSlabs) segments_.pop_front();
  return absl::OkStatus();
}

// Makes segment_ the one that the chunk lies in, and checks that it does.
absl::Status PullReceiver::Map(const v1::SharedChunk& shared) {
  if (segment_ == nullptr || !segment_->Is(shared.segment())) {
    const auto known = std::find_if(segments_.begin(), segments_.end(),
                                    [&](const auto& segment) { return segment->Is(shared.segment()); });
    if (known != segments_.end()) {
      segment_ = *known;
    } else if (absl::Status status = MapAnother(shared.segment()); !status.ok()) {
      return status;
    }
  }
  const uint64_t size = segment_->span().size();
  if (shared.begin() <= size && shared.bytes() <= size - shared.begin()) return absl::OkStatus();
  return Breach(
      absl::StrCat("a chunk of ", shared.bytes(), " bytes at ", shared.begin(), " of shared memory that has ", size));
}

// The tensor begins at `begin` of segment_. Without a sink that adopts it, it is copied as ever.
absl::Status PullReceiver::BeginSharedTensor(uint64_t begin) {
  const uint64_t bytes = parts_[tensor_].ByteSize();
  if (lease_ == nullptr || bytes > segment_->span().size() - begin) return BeginTensor();
  const auto mapped = std::make_shared<LeasedBuffer>(segment_, begin, bytes, lease_);
  if (!sink_.Adopt(tensor_, mapped)) return BeginTensor();
  memory_ = mapped->span();
  digester_.emplace(version_.chunk_bytes());
  return absl::OkStatus();
}

absl::Status PullReceiver::OnSharedChunk(const v1::SharedChunk& shared) {
  const ChunkHeader chunk = HeaderOf(shared.chunk());
  if (absl::Status status = CheckChunk(chunk, shared.bytes()); !status.ok()) return status;
  if (absl::Status status = Map(shared); !status.ok()) return status;
  if (offset_ == 0) {
    if (absl::Status status = BeginSharedTensor(shared.begin()); !status.ok()) return status;
  }
  const absl::Span<const std::byte> payload = segment_->span().subspan(shared.begin(), shared.bytes());
  return AddChunk(chunk, payload.size(), [&](std::byte* dst) {
    return dst == payload.data() ? DigestBytes(payload) : CopyAndDigest(payload, dst);
  });
}

absl::Status PullReceiver::AddChunk(const ChunkHeader& chunk, uint64_t payload_bytes, const Copy& copy) {
  const absl::Span<std::byte> payload = memory_.subspan(offset_, payload_bytes);
  const uint64_t digest = copy(payload.data());
  if (digest != chunk.digest) {
    chunk_was_damaged_ = true;
    return Mismatch(absl::StrCat("tensor ", parts_[tensor_].ToString(), ", chunk at offset ", offset_), chunk.digest,
                    digest);
  }
  const bool ends = chunk.tensor_digest.has_value();
  digester_->UpdateChunk(payload, digest, ends);
  offset_ += payload_bytes;
  received_bytes_ += payload_bytes;
  sink_.Progress(payload_bytes);
  return ends ? EndTensor(*chunk.tensor_digest) : absl::OkStatus();
}

absl::Status PullReceiver::EndTensor(uint64_t expected_digest) {
  const TensorPart& part = parts_[tensor_];
  const uint64_t digest = digester_->Finish();
  if (digest != expected_digest) return Mismatch(absl::StrCat("tensor ", part.ToString()), expected_digest, digest);
  manifest_digester_.Add(part, digest);
  offset_ = 0;
  return sink_.Done(tensor_++);
}

absl::Status PullReceiver::OnCommitted(const v1::PullCommitted& committed) {
  if (phase_ != Phase::kChunks || resumes_) return Breach("the commit marker out of place");
  if (tensor_ != parts_.size()) {
    return Breach(absl::StrCat("the commit marker came while tensor ", parts_[tensor_].ToString(), " stands at ",
                               offset_, " bytes"));
  }
  const v1::VersionSummary& summary = committed.summary();
  if (summary.model() != version_.model() || summary.version() != version_.version() ||
      summary.state() != v1::VERSION_STATE_COMMITTED || !summary.has_manifest_digest()) {
    return Breach(absl::StrCat("the commit marker is of ", Printable(summary.model()), "/", summary.version(),
                               " in state ", v1::VersionState_Name(summary.state()),
                               summary.has_manifest_digest() ? "" : ", without manifest digest"));
  }
  const uint64_t digest = manifest_digester_.Finish();
  if (committed.selection_digest() != digest) {
    return Mismatch("the tensors selected", committed.selection_digest(), digest);
  }
  if (SelectsAll() && summary.manifest_digest() != digest) {
    return Mismatch("the manifest", summary.manifest_digest(), digest);
  }
  version_ = summary;
  lease_number_ = committed.lease();
  skipped_.assign(committed.skipped().begin(), committed.skipped().end());
  phase_ = Phase::kCommitted;
  return absl::OkStatus();
}

absl::Status PullReceiver::OnEnd() const {
  if (phase_ == Phase::kCommitted) return absl::OkStatus();
  return Breach(
      absl::StrCat("the stream ended without the commit marker, after ", tensor_, " of ", parts_.size(), " tensors"));
}

PullResult PullReceiver::result() const {
  PullResult result;
  result.version = version_;
  result.tensors = parts_.size();
  result.bytes = received_bytes_;
  result.skipped = skipped_;
  return result;
}

}  // namespace refit
