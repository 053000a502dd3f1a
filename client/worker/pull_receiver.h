// The worker's half of the pull protocol: checks the messages of one pull in order, and passes tensors to a sink. It
// does not use a connection.
#pragma once

#include <grpcpp/support/byte_buffer.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "client/worker/delta_receiver.h"
#include "client/worker/lease.h"
#include "client/worker/mapped_segments.h"
#include "client/worker/pull_errors.h"
#include "client/worker/received_manifest.h"
#include "common/net/version_key.h"
#include "common/wire/chunk_codec.h"
#include "common/wire/digest.h"
#include "refit/pull.h"
#include "refit/v1/pull.pb.h"

namespace refit {

class PullReceiver {
 public:
  // `context` begins every error message: "pull of default/3 from 127.0.0.1:50051".
  PullReceiver(const PullOptions& options, std::string context, TensorSink& sink);

  // Call it before each stream: the first one, and those that resume it, at the same service or at another one, which
  // `context` names. `lease` is kept with all memory of the service that the sink adopts. `descriptors`: those of the
  // service that sends the stream.
  void BeginStream(std::shared_ptr<const Lease> lease, DescriptorClient descriptors, std::string context);
  // For a pull of the newest version: an older one than this is refused with NOT_FOUND, before the sink hears of it.
  void ExpectAtLeast(const std::optional<VersionKey>& newest) { at_least_ = newest; }
  // Whether the last message was the header of such an older version.
  bool is_behind() const { return is_behind_; }
  // What to request in the next stream: the version, and the place to begin at; nullopt: everything from the beginning.
  struct Place {
    VersionKey version;
    v1::Cursor cursor;
  };
  std::optional<Place> place() const;
  // Whether the last message was a damaged chunk, which may be sent again.
  bool chunk_was_damaged() const { return chunk_was_damaged_; }
  // Whether the last message referred to memory that cannot be mapped. The data may be requested over the connection.
  bool could_not_map() const { return could_not_map_; }

  // Whether the last message showed that the base is another one than the service's. Then RefuseBase, and what depends
  // on it may be requested again.
  bool base_failed() const { return base_failed_; }
  // The base is not used any more, for this reason. The present tensor begins again.
  void RefuseBase(std::string reason);
  // The base to name in the next stream. Null: none.
  const PullBase* base() const { return base_.get(); }

  // INTERNAL for a message that breaks the protocol, DATA_LOSS for a wrong digest, or the sink's error.
  absl::Status OnMessage(const grpc::ByteBuffer& message);

  // Call it when the stream has ended with OK. INTERNAL unless the version was committed.
  absl::Status OnEnd() const;

  // Once committed: not 0 if the service waits for its memory to be returned. The stream does not end before that.
  uint64_t lease() const { return lease_number_; }

  // Version, tensors and bytes.
  PullResult result() const;

 private:
  enum class Phase { kHeader, kManifest, kChunks, kCommitted };

  // Copies a chunk's payload to `dst` and returns its digest.
  using Copy = std::function<uint64_t(std::byte* dst)>;

  absl::Status OnResponse(const v1::PullResponse& response);
  absl::Status OnHeader(const v1::VersionSummary& header);
  absl::Status OnHeaderAgain(const v1::VersionSummary& header);
  absl::Status NoteBase(const v1::VersionSummary& header);
  absl::Status OnManifest(const v1::ManifestPart& part);
  absl::Status OnChunk(const ChunkView& chunk);
  absl::Status OnBatch(absl::Span<const ChunkView> batch);
  absl::Status OnChunk(const ChunkHeader& chunk, uint64_t payload_bytes, const Copy& copy);
  absl::Status OnSharedChunk(const v1::SharedChunk& shared);
  absl::Status EnterSegment(const v1::SharedChunk& shared);
  absl::Status OnCommitted(const v1::PullCommitted& committed);

  absl::Status CheckChunk(const ChunkHeader& chunk, uint64_t payload_bytes) const;
  absl::Status CheckEncoding(const ChunkHeader& chunk, uint64_t payload_bytes) const;
  absl::Status BadChunk(absl::string_view what) const;
  absl::Status Damaged(const ChunkHeader& chunk, uint64_t digest);
  absl::Status BeginTensor();
  absl::Status BeginSharedTensor(uint64_t begin);
  absl::Status AddChunk(const ChunkHeader& chunk, uint64_t payload_bytes, const Copy& copy);
  absl::Status AddDelta(const PulledChunk& delta);
  absl::Status Advance(const ChunkHeader& chunk, uint64_t bytes);
  absl::Status EndTensor(uint64_t expected_digest);

  const std::vector<TensorPart>& parts() const { return manifest_.parts(); }

  const PullOptions& options_;
  PullErrors errors_;
  TensorSink& sink_;
  std::shared_ptr<const Lease> lease_;

  Phase phase_ = Phase::kHeader;
  bool resumes_ = false;  // the header comes again
  bool chunk_was_damaged_ = false;
  bool could_not_map_ = false;
  std::optional<VersionKey> at_least_;
  bool is_behind_ = false;
  VersionSummary version_;
  ReceivedManifest manifest_;
  MappedSegments segments_;

  // The place of the next chunk.
  size_t tensor_ = 0;
  uint64_t offset_ = 0;
  bool placed_ = false;                     // whether the sink has given memory for tensor_
  absl::Span<std::byte> memory_;            // of tensor_
  std::optional<TensorDigester> digester_;  // of tensor_, set at its first chunk

  std::shared_ptr<const PullBase> base_;  // null: none, or it was refused
  std::optional<DeltaReceiver> deltas_;   // set while the service sends deltas of base_
  bool takes_chunks_ = false;             // the sink; nothing is written to memory_ then
  std::vector<std::byte> payload_;        // of a chunk that is not written to memory_ as it is
  bool has_deltas_ = false;               // whether tensor_ depends on the base
  bool base_failed_ = false;
  uint64_t again_ = 0;  // bytes of tensor_ that were received already

  uint64_t lease_number_ = 0;
  std::vector<uint64_t> skipped_;
  ManifestDigester manifest_digester_;
  uint64_t selection_digest_ = 0;
  uint64_t received_bytes_ = 0;
  PullTraffic traffic_;
};

}  // namespace refit
