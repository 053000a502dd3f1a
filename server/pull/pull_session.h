// Makes the messages of one pull stream. It does not depend on gRPC's reactors.
#pragma once

#include <grpcpp/support/byte_buffer.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/wire/chunk_codec.h"
#include "refit/v1/pull.pb.h"
#include "server/pull/held_base.h"
#include "server/pull/lent_segments.h"
#include "server/pull/part_chunks.h"
#include "server/pull/pull_context.h"
#include "server/pull/selection.h"
#include "server/store/version.h"

namespace refit {

// Not thread-safe.
class PullSession {
 public:
  // Finds the version, the selection and the place to begin at. Errors as documented for Pull in pull.proto.
  static absl::StatusOr<std::unique_ptr<PullSession>> Start(PullContext& context, const v1::PullRequest& request,
                                                            const WorkerId& worker, const std::string& peer);

  // The next message; nullopt: nothing to send until the version progresses (see Wait). After the last message done()
  // is true.
  absl::StatusOr<std::optional<grpc::ByteBuffer>> Next();
  bool done() const { return phase_ == Phase::kDone; }

  // Whether the worker was told of memory that it may map. Then the stream must stay open until the worker returns
  // that.
  bool lends() const { return !lent_.empty(); }
  // Sets the lease that the commit marker names. Call it before the marker is made.
  void SetLease(uint64_t lease) { lease_ = lease; }
  // The worker may still use the memory that it was lent, so that memory must not be reused.
  void Forfeit() const;

  // Registers `wake`, to be called when Next would have something. Returns 0 if it has already. See Version::Wait.
  uint64_t Wait(std::function<void()> wake);
  void CancelWait(uint64_t id) { reader_->CancelWait(id); }

  // A message that says that the worker still waits.
  grpc::ByteBuffer WaitingMessage() const;

  // For the fleet's status.
  void Waited(std::chrono::nanoseconds time) { fleet_->Waited(time); }
  void Ended(const absl::Status& status);

  std::string Label() const { return reader_->Label(); }
  const SentChunks& sent() const { return sent_; }
  // The base's number, or why there is none; for the log.
  std::string base() const;
  const std::string& worker() const { return worker_; }

 private:
  enum class Phase { kHeader, kManifest, kChunks, kCommit, kDone };

  PullSession(PullContext& context, std::shared_ptr<Version> version, std::vector<Selected> selection,
              std::string worker)
      : store_(context.store),
        parts_(context.parts),
        reader_(std::move(version)),
        selection_(std::move(selection)),
        worker_(std::move(worker)),
        lent_(context.descriptors) {}
  absl::Status SetCursor(const v1::PullRequest& request);
  void FindBase(PullContext& context, const v1::PullRequest& request);
  uint64_t SelectedBytes() const;
  // Index of the tensor that is being sent; the number of tensors after the last one.
  size_t PresentTensor() const;
  grpc::ByteBuffer Header();
  grpc::ByteBuffer Manifest();
  absl::StatusOr<std::optional<grpc::ByteBuffer>> NextChunk();
  // A chunk in the form in which it is sent.
  struct Outgoing {
    ChunkHeader header;
    std::shared_ptr<const Buffer> owner;  // null if there is no payload
    absl::Span<const std::byte> payload;
    SentChunk sent;
  };
  // The chunk at the current place; nullopt: not converted yet.
  absl::StatusOr<std::optional<Outgoing>> GetOutgoing();
  grpc::ByteBuffer NextBatch(Outgoing first);
  grpc::ByteBuffer SharedMessage(const Outgoing& chunk);
  void Advance(const Outgoing& chunk);
  uint64_t SizeOf(const Selected& selected) const;
  // The part that is being sent.
  const PartChunks& PresentPart();
  absl::StatusOr<std::optional<grpc::ByteBuffer>> Committed();

  const VersionStore& store_;
  PartTable& parts_;
  Version::Reader reader_;
  const std::vector<Selected> selection_;
  const std::string worker_;
  std::unique_ptr<WorkerRegistry::Pull> fleet_;
  Phase phase_ = Phase::kHeader;
  bool skip_manifest_ = false;
  std::optional<VersionKey> installed_;  // the version that the worker has
  bool batches_ = false;                 // whether the worker accepts batches
  bool shares_ = false;                  // whether the worker maps shared memory
  LentSegments lent_;
  uint64_t lease_ = 0;
  size_t manifest_next_ = 0;
  size_t tensor_ = 0;               // index into selection_
  uint64_t chunk_ = 0;              // within the selected part of that tensor
  std::optional<PartChunks> part_;  // of that tensor; nullopt until it is needed
  std::unique_ptr<HeldBase> base_;  // null: no deltas are sent
  std::string base_refused_;        // the reason, if the worker has named one
  SentChunks sent_;
};

}  // namespace refit
