#include "client/trainer/push_opening.h"

#include <google/protobuf/arena.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/net/byte_buffer.h"
#include "common/net/messages.h"
#include "common/net/version_summary.h"
#include "refit/sizes.h"

namespace refit {
namespace {

// The declaration is sent in parts of about this size.
constexpr size_t kDeclareBytes = 128 << 10;
// What a message may contain besides its payload.
constexpr uint64_t kMessageOverhead = 1 << 10;
// Chunks are split at multiples of the largest element.
constexpr uint64_t kElementBytes = 8;

v1::PushRequest OpenRequest(const PublishOptions& options, const SharedRing* ring) {
  v1::PushRequest request;
  v1::OpenVersion& open = *request.mutable_open();
  open.set_model(options.model);
  open.set_version(options.version);
  open.set_adapter(options.adapter);
  if (options.dtype.has_value()) open.set_dtype(static_cast<v1::DType>(*options.dtype));
  open.set_exclude_key_regex(options.exclude_key_regex);
  open.set_keep_dtype_regex(options.keep_dtype_regex);
  open.mutable_adapter_options()->insert(options.adapter_options.begin(), options.adapter_options.end());
  open.set_cast_family_dtypes(!options.keep_family_dtypes);
  open.set_publisher(options.publisher);
  open.set_hold_installs(options.hold_installs);
  open.set_trainer_epoch(options.trainer_epoch);
  open.set_allow_empty(options.allow_empty);
  if (options.world > 1) {
    open.set_rank(options.rank);
    open.set_world(options.world);
  }
  if (ring != nullptr) *open.mutable_segment() = ring->announcement();
  return request;
}

absl::Status Declare(PushStream& stream, absl::Span<const TensorPart> shards, absl::Span<const ShardCast> casts) {
  google::protobuf::Arena arena;  // for very many small parts; its memory is reused for the next message
  v1::PushRequest& request = *google::protobuf::Arena::CreateMessage<v1::PushRequest>(&arena);
  size_t bytes = 0;
  for (size_t i = 0; i < shards.size(); ++i) {
    const TensorPart& shard = shards[i];
    v1::DeclaredTensor& declared = *request.mutable_declare()->add_tensors();
    ToProto(shard.tensor, *declared.mutable_tensor());
    declared.mutable_tensor()->set_dtype(static_cast<v1::DType>(casts[i].sent()));
    if (!shard.is_whole()) ToProto(shard.box, *declared.mutable_box());
    bytes += declared.ByteSizeLong();
    if (bytes < kDeclareBytes) continue;
    if (absl::Status status = stream.Send(Serialize(request)); !status.ok()) return status;
    request.mutable_declare()->Clear();
    bytes = 0;
  }
  request.mutable_declare()->set_last(true);
  return stream.Send(Serialize(request));
}

// The longest chunk allowed by both the version's chunk size and the limits; 0 if there is none.
uint64_t ChunkLimit(const v1::VersionOpened& opened) {
  const uint64_t limit =
      std::min({opened.summary().chunk_bytes(), opened.max_chunk_bytes(), kMaxMessageBytes - kMessageOverhead});
  return limit / kElementBytes * kElementBytes;
}

absl::Status Mark(const google::protobuf::RepeatedField<uint64_t>& shards, std::vector<bool>& marks) {
  for (const uint64_t shard : shards) {
    if (shard >= marks.size()) {
      return absl::InternalError(absl::StrCat("the service does not want the bytes of tensor number ", shard, "; ",
                                              marks.size(), " were declared"));
    }
    marks[shard] = true;
  }
  return absl::OkStatus();
}

absl::Status CheckUnderstood(const PublishOptions& options, const v1::VersionOpened& opened) {
  // A service without support for ranks would take this one for the whole trainer, and commit without the others.
  if (options.world > 1 && opened.summary().world() != options.world) {
    return absl::InternalError(absl::StrCat("the service opened it for ", opened.summary().world(), " ranks"));
  }
  if (!options.keep_dtype_regex.empty() && !opened.keeps_dtypes()) {
    return absl::FailedPreconditionError(
        "the service is older than keep_dtype_regex, and would cast what is to keep its dtype; update it, or cast the "
        "others before they are pushed");
  }
  return absl::OkStatus();
}

absl::StatusOr<OpenedPush> Accept(const PublishOptions& options, size_t shards, const v1::VersionOpened& opened) {
  if (absl::Status status = CheckUnderstood(options, opened); !status.ok()) return status;
  OpenedPush push;
  push.digest_only.resize(shards);
  push.unneeded.resize(shards);
  if (absl::Status status = Mark(opened.digest_only(), push.digest_only); !status.ok()) return status;
  if (absl::Status status = Mark(opened.unneeded(), push.unneeded); !status.ok()) return status;
  push.chunk_limit = ChunkLimit(opened);
  if (push.chunk_limit == 0) {
    return absl::InternalError(absl::StrCat("the service wants chunks of ", opened.summary().chunk_bytes(),
                                            " bytes, at most ", opened.max_chunk_bytes()));
  }
  push.summary = FromProto(opened.summary());
  push.window_bytes = opened.window_bytes();
  push.shares_memory = opened.shared_memory();
  return push;
}

}  // namespace

absl::StatusOr<OpenedPush> OpenPush(PushStream& stream, const PublishOptions& options,
                                    absl::Span<const TensorPart> shards, absl::Span<const ShardCast> casts,
                                    const SharedRing* ring) {
  if (absl::Status status = stream.Send(Serialize(OpenRequest(options, ring))); !status.ok()) return status;
  if (absl::Status status = Declare(stream, shards, casts); !status.ok()) return status;
  v1::PushResponse response;
  if (absl::Status status = stream.Receive(v1::PushResponse::kOpened, response); !status.ok()) return status;
  absl::StatusOr<OpenedPush> opened = Accept(options, shards.size(), response.opened());
  if (!opened.ok()) return stream.Fail(opened.status());
  return opened;
}

}  // namespace refit
