#include "client/trainer/wire_push.h"

#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/trainer/append_checks.h"
#include "client/trainer/cast_shards.h"
#include "client/trainer/chunk_sender.h"
#include "client/trainer/push_opening.h"
#include "client/trainer/push_stream.h"
#include "client/trainer/shard_progress.h"
#include "client/trainer/shared_ring.h"
#include "common/net/address.h"
#include "common/net/descriptor_client.h"
#include "common/net/status.h"
#include "common/net/version_summary.h"
#include "common/tensor/shard_names.h"
#include "refit/fork_guard.h"

namespace refit {
namespace {

// Only a few chunks, so that payloads are still in the cache when the service reads them.
constexpr uint64_t kRingBytes = 16 << 20;

std::string ContextOf(const PublishOptions& options, const std::string& address) {
  const std::string rank =
      options.world > 1 ? absl::StrCat(" (rank ", options.rank, " of ", options.world, ")") : std::string();
  return absl::StrCat("push of ", options.model, "/", options.version, rank, " to ", address);
}

absl::Status CheckShard(const TensorPart& shard) {
  // The service limits the length of names, not the client.
  if (absl::Status status = Validate(shard.tensor, std::numeric_limits<size_t>::max()); !status.ok()) return status;
  const absl::Status status = Validate(shard.box, shard.tensor.shape);
  return status.ok() ? status : Annotate(status, absl::StrCat("tensor ", Printable(shard.tensor.name)));
}

absl::Status CheckDeclaration(const PublishOptions& options, const std::vector<TensorPart>& shards) {
  if (options.rank >= options.world) {
    return absl::InvalidArgumentError(absl::StrCat("rank ", options.rank, " is not below world ", options.world));
  }
  for (const TensorPart& shard : shards) {
    if (absl::Status status = CheckShard(shard); !status.ok()) return status;
  }
  return absl::OkStatus();
}

// Null if there is no shared memory, or the service is on another host: then everything is sent over the connection.
absl::StatusOr<std::unique_ptr<SharedRing>> RingTo(const ServiceConnection& service) {
  const bool may_share = service.transport == Transport::kSharedMemory ||
                         (service.transport == Transport::kAuto && IsLocal(service.address));
  if (!may_share) return nullptr;
  absl::StatusOr<std::unique_ptr<SharedRing>> ring = SharedRing::Create(kRingBytes);
  if (ring.ok() || service.transport == Transport::kSharedMemory) return ring;
  return nullptr;
}

class WirePush final : public VersionPush {
 public:
  // Objects that only the process that made them may destroy.
  struct Connection {
    Connection(std::unique_ptr<SharedRing> offered, const ServiceConnection& service, const PublishOptions& options,
               std::string context)
        : ring(std::move(offered)), stream(service.channel, service.calls, options, std::move(context)) {}

    std::unique_ptr<SharedRing> ring;
    PushStream stream;
  };

  WirePush(OwnedByProcess<Connection> connection, std::vector<TensorPart> shards, std::vector<ShardCast> casts,
           OpenedPush opened)
      : connection_(std::move(connection)),
        shards_(std::move(shards)),
        casts_(std::move(casts)),
        opened_(std::move(opened)),
        chunks_(stream(), opened_.shares_memory ? connection_->ring.get() : nullptr, opened_.window_bytes,
                opened_.chunk_limit) {
    progress_.reserve(shards_.size());
    for (size_t i = 0; i < shards_.size(); ++i) {
      progress_.emplace_back(casts_[i].SentBytes(shards_[i].ByteSize()), opened_.summary.chunk_bytes);
    }
  }

  const VersionSummary& summary() const override { return opened_.summary; }
  const std::vector<TensorPart>& shards() const override { return shards_; }
  bool digest_only(size_t index) const override {
    return index < opened_.digest_only.size() && opened_.digest_only[index];
  }
  bool unneeded(size_t index) const override { return index < opened_.unneeded.size() && opened_.unneeded[index]; }
  absl::StatusOr<size_t> IndexOf(absl::string_view name) override;
  absl::Status Append(size_t index, absl::Span<const std::byte> bytes, std::shared_ptr<const void> owner) override;
  absl::Status Push(absl::string_view name, absl::Span<const std::byte> bytes,
                    std::shared_ptr<const void> owner) override;
  absl::StatusOr<VersionSummary> Commit() override;
  absl::Status Abort(absl::string_view reason) override;

 private:
  PushStream& stream() { return connection_->stream; }
  // A child of a fork must not touch the connection, except what never changes.
  absl::Status CheckNotForked() const { return connection_.get_deleter().guard.Check(connection_->stream.context()); }
  absl::Status CheckAppend(size_t index, absl::Span<const std::byte> bytes);
  absl::Status AppendChunk(size_t index, absl::Span<const std::byte> native, std::shared_ptr<const void> owner);
  absl::Status AppendDigest(size_t index, absl::Span<const std::byte> native);
  // Of the shard as the trainer has it.
  uint64_t missing_bytes(size_t index) const { return casts_[index].NativeBytes(progress_[index].missing_bytes()); }

  const OwnedByProcess<Connection> connection_;
  const std::vector<TensorPart> shards_;  // as the trainer has them
  const AppendChecks checks_{connection_->stream.context(), shards_};
  const std::vector<ShardCast> casts_;
  const OpenedPush opened_;
  ChunkSender chunks_;
  std::vector<ShardProgress> progress_;  // of the bytes as they are sent
  ShardNames names_{shards_};
  bool committed_ = false;
};

absl::StatusOr<size_t> WirePush::IndexOf(absl::string_view name) {
  absl::StatusOr<size_t> index = names_.IndexOf(name);
  if (!index.ok()) return Annotate(index.status(), stream().context());
  return index;
}

absl::Status WirePush::CheckAppend(size_t index, absl::Span<const std::byte> bytes) {
  if (absl::Status status = CheckNotForked(); !status.ok()) return status;
  if (!stream().over().ok()) return stream().over();
  return checks_.Append(index, bytes, [this](size_t i) { return missing_bytes(i); });
}

absl::Status WirePush::Append(size_t index, absl::Span<const std::byte> bytes, std::shared_ptr<const void> owner) {
  if (absl::Status status = CheckAppend(index, bytes); !status.ok()) return status;
  if (opened_.unneeded[index]) {
    progress_[index].Skip(casts_[index].SentBytes(bytes.size()));
    return absl::OkStatus();
  }
  if (opened_.digest_only[index]) return AppendDigest(index, bytes);
  while (!bytes.empty()) {
    // Chunks are split at multiples of the chunk size within the shard, wherever the caller's pieces begin.
    const uint64_t to_boundary = opened_.chunk_limit - progress_[index].bytes() % opened_.chunk_limit;
    const auto chunk = bytes.subspan(0, casts_[index].NativeBytes(to_boundary));
    if (absl::Status status = AppendChunk(index, chunk, owner); !status.ok()) return status;
    bytes.remove_prefix(chunk.size());
  }
  return absl::OkStatus();
}

absl::Status WirePush::AppendChunk(size_t index, absl::Span<const std::byte> native,
                                   std::shared_ptr<const void> owner) {
  absl::StatusOr<ChunkSender::Payload> payload = chunks_.Prepare(native, casts_[index], std::move(owner));
  if (!payload.ok()) return payload.status();
  ChunkHeader header;
  header.tensor = index;
  header.offset = progress_[index].bytes();
  header.digest = payload->digest;
  header.tensor_digest = progress_[index].AddChunk(payload->bytes, payload->digest);
  return chunks_.Send(header, *std::move(payload), shards_[index].tensor.name);
}

// Another rank sends the bytes. This one only sends their digest.
absl::Status WirePush::AppendDigest(size_t index, absl::Span<const std::byte> native) {
  if (native.empty()) return absl::OkStatus();
  ChunkHeader header;
  header.tensor = index;
  header.digest = DigestBytes({});
  casts_[index].ForEachSent(
      native, [&](absl::Span<const std::byte> sent) { header.tensor_digest = progress_[index].Add(sent); });
  if (!header.tensor_digest.has_value()) return absl::OkStatus();
  return chunks_.SendShort(header, {}, shards_[index].tensor.name);
}

absl::Status WirePush::Push(absl::string_view name, absl::Span<const std::byte> bytes,
                            std::shared_ptr<const void> owner) {
  const absl::StatusOr<size_t> index = IndexOf(name);
  if (!index.ok()) return index.status();
  if (absl::Status status = checks_.Push(*index, bytes); !status.ok()) return status;
  return Append(*index, bytes, std::move(owner));
}

absl::StatusOr<VersionSummary> WirePush::Commit() {
  if (absl::Status status = CheckNotForked(); !status.ok()) return status;
  if (!stream().over().ok()) return stream().over();
  const absl::Status complete =
      checks_.Commit([this](size_t i) { return missing_bytes(i); }, [this](size_t i) { return opened_.unneeded[i]; });
  if (!complete.ok()) return complete;
  v1::PushRequest request;
  request.mutable_commit();
  if (absl::Status status = stream().SendLast(request); !status.ok()) return status;
  v1::PushResponse response;
  if (absl::Status status = stream().Receive(v1::PushResponse::kCommitted, response); !status.ok()) return status;
  committed_ = true;
  stream().Close("is committed");
  return FromProto(response.committed().summary());
}

absl::Status WirePush::Abort(absl::string_view reason) {
  if (absl::Status status = CheckNotForked(); !status.ok()) return status;
  if (committed_) return stream().over();
  if (!stream().over().ok()) return absl::OkStatus();
  v1::PushRequest request;
  request.mutable_abort()->set_reason(std::string(reason));
  if (absl::Status status = stream().SendLast(request); !status.ok()) return status;
  v1::PushResponse response;
  if (absl::Status status = stream().Receive(v1::PushResponse::kAborted, response); !status.ok()) return status;
  stream().Close(absl::StrCat("was aborted: ", reason));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<VersionPush>> OpenWirePush(const ServiceConnection& service,
                                                          const PublishOptions& options,
                                                          std::vector<TensorPart> shards) {
  std::string context = ContextOf(options, service.address);
  if (absl::Status status = CheckDeclaration(options, shards); !status.ok()) return Annotate(status, context);
  absl::StatusOr<std::unique_ptr<SharedRing>> ring = RingTo(service);
  if (!ring.ok()) return Annotate(ring.status(), context);
  const FileDescriptor offer =
      *ring == nullptr ? FileDescriptor() : (*ring)->OfferTo(DescriptorClient(service.address));
  auto connection = MakeOwnedByProcess<WirePush::Connection>(*std::move(ring), service, options, std::move(context));
  PushStream& stream = connection->stream;
  std::vector<ShardCast> casts = PlanCasts(options, shards);
  absl::StatusOr<OpenedPush> opened = OpenPush(stream, options, shards, casts, connection->ring.get());
  if (!opened.ok()) return opened.status();
  if (!opened->shares_memory) {
    if (service.transport == Transport::kSharedMemory) {
      return stream.Fail(absl::UnavailableError("the service does not take this process's shared memory"));
    }
    connection->ring.reset();
  }
  return std::make_unique<WirePush>(std::move(connection), std::move(shards), std::move(casts), *std::move(opened));
}

}  // namespace refit
