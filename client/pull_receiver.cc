#include "client/pull_receiver.h"

#include <cstring>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/net/byte_buffer.h"
#include "common/net/messages.h"

namespace refit {

PullReceiver::PullReceiver(const PullOptions& options, std::string context, TensorSink& sink)
    : options_(options), context_(std::move(context)), sink_(sink) {}

absl::Status PullReceiver::Breach(absl::string_view what) const {
  return absl::InternalError(absl::StrCat(context_, ": the service broke the protocol: ", what));
}

absl::Status PullReceiver::Mismatch(absl::string_view what, uint64_t expected, uint64_t got) const {
  return absl::DataLossError(
      absl::StrFormat("%s: %s: its digest is %016x, the bytes received have %016x", context_, what, expected, got));
}

bool PullReceiver::SelectsAll() const { return options_.filter.empty() && options_.names.empty(); }

absl::Status PullReceiver::OnMessage(const grpc::ByteBuffer& buffer) {
  const ReceivedMessage message(buffer);
  const absl::StatusOr<std::optional<DecodedChunk>> chunk = message.DecodeChunk();
  if (!chunk.ok()) return Breach(chunk.status().message());
  if (chunk->has_value()) {
    return OnChunk((*chunk)->header, (*chunk)->payload_bytes,
                   [&](std::byte* dst) { return message.CopyAndDigest((*chunk)->payload_offset, dst); });
  }
  v1::PullResponse response;
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
      return absl::OkStatus();  // it has shown that the service lives
    case v1::PullResponse::kChunk: {
      // From an encoder that orders fields otherwise.
      const v1::Chunk& chunk = response.chunk();
      const std::string& payload = chunk.payload();
      return OnChunk(HeaderOf(chunk), payload.size(), [&payload](std::byte* dst) {
        // An empty tensor may have no memory at all.
        if (!payload.empty()) std::memcpy(dst, payload.data(), payload.size());
        return DigestBytes({dst, payload.size()});
      });
    }
    case v1::PullResponse::RESPONSE_NOT_SET:
      break;
  }
  return Breach("a message of no known kind");
}

absl::Status PullReceiver::OnHeader(const v1::VersionSummary& header) {
  if (phase_ != Phase::kHeader) return Breach("a second header");
  if (header.model() != options_.model || (options_.version.has_value() && header.version() != *options_.version)) {
    return Breach(absl::StrCat("it sends version ", Printable(header.model()), "/", header.version()));
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
  if (part.first() != specs_.size()) {
    return Breach(absl::StrCat("a part of the manifest from entry ", part.first(), " on; expected ", specs_.size()));
  }
  for (const v1::ManifestEntry& entry : part.entries()) {
    if (absl::Status status = OnManifestEntry(entry); !status.ok()) return status;
  }
  return part.last() ? OnManifestEnd() : absl::OkStatus();
}

absl::Status PullReceiver::OnManifestEntry(const v1::ManifestEntry& entry) {
  absl::StatusOr<TensorSpec> spec = FromProto(entry.tensor(), std::numeric_limits<size_t>::max());
  if (!spec.ok()) return Breach(absl::StrCat("a bad entry in the manifest: ", spec.status().message()));
  const uint64_t bytes = spec->ByteSize();
  if (entry.bytes() != bytes) {
    return Breach(
        absl::StrCat("the manifest gives tensor ", spec->ToString(), " ", entry.bytes(), " bytes; expected ", bytes));
  }
  if (entry.has_box()) return Breach(absl::StrCat("the manifest has a part of tensor ", spec->ToString(), " only"));
  if (!names_.insert(spec->name).second) {
    return Breach(absl::StrCat("the manifest has tensor ", Printable(spec->name), " twice"));
  }
  if (specs_.size() == version_.tensors() || bytes > version_.bytes() - manifest_bytes_) {
    return Breach(absl::StrCat("the manifest has more than the header's ", version_.tensors(), " tensors of ",
                               version_.bytes(), " bytes"));
  }
  manifest_bytes_ += bytes;
  specs_.push_back(*std::move(spec));
  return absl::OkStatus();
}

absl::Status PullReceiver::OnManifestEnd() {
  if (SelectsAll() && (specs_.size() != version_.tensors() || manifest_bytes_ != version_.bytes())) {
    return Breach(absl::StrCat("the manifest has ", specs_.size(), " tensors of ", manifest_bytes_,
                               " bytes, its header says ", version_.tensors(), " of ", version_.bytes()));
  }
  names_.clear();
  phase_ = Phase::kChunks;
  return sink_.Begin(version_, specs_);
}

absl::Status PullReceiver::CheckChunk(const ChunkHeader& chunk, uint64_t payload_bytes) const {
  if (phase_ != Phase::kChunks) return Breach("a chunk out of place");
  if (tensor_ == specs_.size()) return Breach("a chunk after the last tensor's end");
  const TensorSpec& spec = specs_[tensor_];
  if (chunk.tensor != tensor_ || chunk.offset != offset_) {
    return Breach(absl::StrCat("a chunk of tensor number ", chunk.tensor, " at offset ", chunk.offset,
                               "; expected number ", tensor_, " (", spec.ToString(), ") at offset ", offset_));
  }
  const auto bad = [&](const auto&... what) {
    return Breach(absl::StrCat("tensor ", spec.ToString(), ", chunk at offset ", offset_, ": ", what...));
  };
  if (chunk.encoding != v1::CHUNK_ENCODING_RAW) return bad("encoding ", chunk.encoding, " was not asked for");
  if (chunk.decoded_bytes != 0 && chunk.decoded_bytes != payload_bytes) {
    return bad("raw, but of ", chunk.decoded_bytes, " bytes made from ", payload_bytes);
  }
  const uint64_t rest = spec.ByteSize() - offset_;
  if (payload_bytes > rest) return bad(payload_bytes, " bytes, but the tensor lacks ", rest);
  if (payload_bytes == 0 && rest != 0) return bad("it is empty, but the tensor lacks ", rest, " bytes");
  if (chunk.tensor_digest.has_value() != (payload_bytes == rest)) {
    return bad(payload_bytes == rest ? "it ends the tensor without a tensor digest"
                                     : "a tensor digest, but it does not end the tensor");
  }
  return absl::OkStatus();
}

absl::Status PullReceiver::BeginTensor() {
  const TensorSpec& spec = specs_[tensor_];
  const absl::StatusOr<absl::Span<std::byte>> memory = sink_.Place(tensor_);
  if (!memory.ok()) return memory.status();
  if (memory->size() != spec.ByteSize()) {
    return absl::InvalidArgumentError(absl::StrCat(context_, ": the sink has ", memory->size(), " bytes for tensor ",
                                                   spec.ToString(), "; expected ", spec.ByteSize()));
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
  const absl::Span<std::byte> payload = memory_.subspan(offset_, payload_bytes);
  const uint64_t digest = copy(payload.data());
  if (digest != chunk.digest) {
    return Mismatch(absl::StrCat("tensor ", specs_[tensor_].ToString(), ", chunk at offset ", offset_), chunk.digest,
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
  const TensorSpec& spec = specs_[tensor_];
  const uint64_t digest = digester_->Finish();
  if (digest != expected_digest) return Mismatch(absl::StrCat("tensor ", spec.ToString()), expected_digest, digest);
  manifest_digester_.Add(spec, digest);
  offset_ = 0;
  return sink_.Done(tensor_++);
}

absl::Status PullReceiver::OnCommitted(const v1::PullCommitted& committed) {
  if (phase_ != Phase::kChunks) return Breach("the commit marker out of place");
  if (tensor_ != specs_.size()) {
    return Breach(absl::StrCat("the commit marker came while tensor ", specs_[tensor_].ToString(), " stands at ",
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
  phase_ = Phase::kCommitted;
  return absl::OkStatus();
}

absl::Status PullReceiver::OnEnd() const {
  if (phase_ == Phase::kCommitted) return absl::OkStatus();
  return Breach(
      absl::StrCat("the stream ended without the commit marker, after ", tensor_, " of ", specs_.size(), " tensors"));
}

PullResult PullReceiver::result() const {
  PullResult result;
  result.version = version_;
  result.tensors = specs_.size();
  result.bytes = received_bytes_;
  return result;
}

}  // namespace refit
