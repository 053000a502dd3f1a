#include "server/push/push_session.h"

#include <google/protobuf/arena.h>

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"
#include "common/net/address.h"
#include "common/net/byte_buffer.h"
#include "common/net/messages.h"
#include "common/net/received_message.h"
#include "common/net/status.h"
#include "server/access/limit_checks.h"
#include "server/access/limit_reached.h"

namespace refit {
namespace {

constexpr size_t kMaxRanksNamed = 16;

absl::Status OutOfOrder(absl::string_view what) {
  return absl::FailedPreconditionError(absl::StrCat(
      "messages out of order: ", what, "; expected open, declare (until last), chunks, then commit or abort"));
}

}  // namespace

PushSession::~PushSession() { Abandon("its stream ended before the commit"); }

std::string PushSession::Label() const {
  if (!options_.has_value()) return "push";
  return absl::StrCat("version ", Printable(options_->model), "/", options_->version);
}

void PushSession::Abandon(const std::string& reason) {
  if (finished_ || abandoned_) return;
  abandoned_ = true;
  if (builder_ == nullptr || !builder_->Abort(reason)) return;
  context_.admission.log.Warning(
      "version aborted",
      {{"model", options_->model}, {"version", absl::StrCat(options_->version)}, {"peer", peer_}, {"reason", reason}});
}

absl::StatusOr<PushSession::Answer> PushSession::Handle(const ReceivedMessage& message) {
  if (finished_) return OutOfOrder(absl::StrCat("a message after the end of the push of ", Label()));
  absl::StatusOr<Answer> answer = Dispatch(message);
  if (answer.ok()) return answer;
  Abandon(answer.status().ToString());
  return Explain(answer.status());
}

// If a later run has fenced off the version, its own trainer gets another error than for an abort: retrying is useless.
absl::Status PushSession::Explain(const absl::Status& status) const {
  const bool fenced = absl::IsAborted(status) && builder_ != nullptr && builder_->version()->is_fenced();
  return fenced ? absl::FailedPreconditionError(status.message()) : status;
}

absl::StatusOr<PushSession::Answer> PushSession::Dispatch(const ReceivedMessage& message) {
  absl::StatusOr<std::optional<DecodedChunk>> chunk = message.DecodeChunk();
  if (!chunk.ok()) return chunk.status();
  if (chunk->has_value()) {
    if (absl::Status status = CheckTakesChunks(); !status.ok()) return status;
    return chunks_->Handle(**chunk, message);
  }
  if (const auto batch = message.DecodeBatch(); batch.has_value()) return HandleBatch(*batch);
  google::protobuf::Arena arena;  // a declaration may have very many small parts
  v1::PushRequest& request = *google::protobuf::Arena::CreateMessage<v1::PushRequest>(&arena);
  if (absl::Status status = Parse(message.buffer(), request); !status.ok()) return status;
  switch (request.request_case()) {
    case v1::PushRequest::kChunk:
      if (absl::Status status = CheckTakesChunks(); !status.ok()) return status;
      return chunks_->Handle(ViewOf(request.chunk()));
    case v1::PushRequest::kSharedChunk:
      return HandleSharedChunk(request.shared_chunk());
    case v1::PushRequest::kChunks:
      return HandleBatch(ViewsOf(request.chunks()));
    case v1::PushRequest::kOpen:
      return Open(request.open());
    case v1::PushRequest::kDeclare:
      return Declare(request.declare());
    case v1::PushRequest::kCommit:
      if (absl::Status status = Commit(); !status.ok()) return status;
      return Poll();  // the last rank gets the answer to its commit at once
    case v1::PushRequest::kAbort:
      return Abort(request.abort());
    case v1::PushRequest::REQUEST_NOT_SET:
      break;
  }
  return absl::InvalidArgumentError("a PushRequest without any of chunk, open, declare, commit and abort");
}

absl::StatusOr<PushSession::Answer> PushSession::Open(const v1::OpenVersion& open) {
  if (options_.has_value()) return OutOfOrder("a second open");
  if (open.has_base_version())
    return absl::InvalidArgumentError("base_version is set, but deltas are not supported yet");
  if (open.layout() != v1::LAYOUT_WHOLE) {
    return absl::InvalidArgumentError(
        absl::StrCat("layout ", open.layout(), " is not supported; expected LAYOUT_WHOLE"));
  }
  PublishOptions options;
  if (open.dtype() != v1::DTYPE_UNSPECIFIED) {
    absl::StatusOr<DType> dtype = DTypeFromWire(open.dtype());
    if (!dtype.ok()) return dtype.status();
    options.dtype = *dtype;
    if (absl::Status status = CheckCastTarget(*dtype); !status.ok()) return status;
  }
  options.model = open.model();
  options.version = open.version();
  options.adapter = open.adapter();
  if (absl::Status status = CheckRegex(open.exclude_key_regex(), context_.admission.limits); !status.ok())
    return status;
  options.exclude_key_regex = open.exclude_key_regex();
  if (absl::Status status = CheckRegex(open.keep_dtype_regex(), context_.admission.limits); !status.ok()) return status;
  options.keep_dtype_regex = open.keep_dtype_regex();
  options.adapter_options.insert(open.adapter_options().begin(), open.adapter_options().end());
  options.keep_family_dtypes = !open.cast_family_dtypes();
  options.publisher = open.publisher().empty() ? peer_ : open.publisher();
  options.trainer_epoch = open.trainer_epoch();
  options.allow_empty = open.allow_empty();
  options.rank = open.rank();
  options.world = std::max<uint32_t>(open.world(), 1);
  if (options.world > context_.admission.limits.max_ranks) {
    return LimitReached("--max-ranks", absl::StrCat("a version of ", options.world, " ranks; at most ",
                                                    context_.admission.limits.max_ranks,
                                                    " may push one together, which is the limit (--max-ranks)"));
  }
  options.hold_installs = open.hold_installs();
  options_ = std::move(options);
  if (open.has_segment()) MapSegment(open.segment());
  return std::nullopt;
}

void PushSession::MapSegment(const v1::SharedSegment& announced) {
  if (!context_.store.options().shared_memory || !IsLocal(peer_)) return;
  absl::StatusOr<std::shared_ptr<MappedSegment>> segment = MappedSegment::Open(announced);
  if (!segment.ok()) {
    const FileDescriptor offered = context_.descriptors.Claim(announced.key());
    if (offered.valid()) segment = MappedSegment::OfDescriptor(offered, announced);
  }
  if (segment.ok()) {
    segment_ = *std::move(segment);
  } else {
    context_.admission.log.Info(
        "a trainer's memory cannot be shared",
        {{"push", Label()}, {"peer", peer_}, {"error", std::string(segment.status().message())}});
  }
}

absl::StatusOr<PushSession::Answer> PushSession::Declare(const v1::DeclareTensors& declare) {
  if (!options_.has_value()) return OutOfOrder("declare before open");
  if (builder_ != nullptr) return OutOfOrder("declare after the last declare");
  if (declared_.size() + declare.tensors_size() > context_.admission.limits.max_tensors_per_version) {
    return LimitReached("--max-tensors",
                        absl::StrCat(Label(), ": more than ", context_.admission.limits.max_tensors_per_version,
                                     " native tensors were declared, which is the limit (--max-tensors)"));
  }
  for (const v1::DeclaredTensor& tensor : declare.tensors()) {
    if (absl::Status status = CheckTensor(tensor.tensor(), context_.admission.limits); !status.ok()) {
      return Annotate(status, Label());
    }
    absl::StatusOr<TensorSpec> spec = FromProto(tensor.tensor(), context_.admission.limits.max_name_bytes);
    if (!spec.ok()) return Annotate(spec.status(), Label());
    Box box = tensor.has_box() ? FromProto(tensor.box()) : WholeBox(spec->shape);
    declared_.push_back({*std::move(spec), std::move(box)});
  }
  if (!declare.last()) return std::nullopt;

  absl::StatusOr<std::unique_ptr<VersionBuilder>> builder =
      VersionBuilder::Open(context_.store, *options_, std::move(declared_), context_.admission.limits);
  if (!builder.ok()) {
    const bool is_named = absl::StartsWith(builder.status().message(), Label());
    return is_named ? builder.status() : Annotate(builder.status(), Label());
  }
  builder_ = *std::move(builder);
  chunks_.emplace(context_, *builder_, segment_, Label());
  declared_at_ = Clock::now();
  const v1::VersionSummary summary = builder_->version()->Summary();
  context_.admission.log.Info("version opened", {{"model", options_->model},
                                                 {"version", absl::StrCat(options_->version)},
                                                 {"rank", absl::StrCat(options_->rank, " of ", options_->world)},
                                                 {"publisher", options_->publisher},
                                                 {"peer", peer_},
                                                 {"tensors", absl::StrCat(summary.tensors())},
                                                 {"bytes", absl::StrCat(summary.bytes())}});
  return std::nullopt;
}

absl::StatusOr<PushSession::Answer> PushSession::Poll() {
  if (!is_open()) return std::nullopt;
  v1::VersionSummary summary = builder_->version()->Summary();
  if (summary.state() == v1::VERSION_STATE_ABORTED) {
    return Explain(absl::AbortedError(absl::StrCat(Label(), " was aborted: ", summary.abort_reason())));
  }
  if (!opened_) {
    if (!builder_->version()->rank_shards().is_complete()) return std::nullopt;
    opened_ = true;
    chunks_->AllowDigestsAlone();
    return OpenedMessage();
  }
  if (summary.state() == v1::VERSION_STATE_OPEN) return std::nullopt;
  finished_ = true;
  return CommittedMessage(std::move(summary));
}

uint64_t PushSession::Wait(std::function<void()> wake) {
  Version& version = *builder_->version();
  return opened_ ? version.WaitForEnd(std::move(wake)) : version.WaitForRanks(std::move(wake));
}

v1::PushResponse PushSession::OpenedMessage() const {
  v1::PushResponse response;
  v1::VersionOpened& opened = *response.mutable_opened();
  *opened.mutable_summary() = builder_->version()->Summary();
  opened.set_max_chunk_bytes(context_.store.options().chunk_bytes);
  opened.set_window_bytes(chunks_->window_bytes());
  opened.set_shared_memory(segment_ != nullptr);
  opened.set_keeps_dtypes(!options_->keep_dtype_regex.empty());
  for (size_t i = 0; i < builder_->shards().size(); ++i) {
    if (builder_->is_unneeded(i)) {
      opened.add_unneeded(i);
    } else if (builder_->is_digest_only(i)) {
      opened.add_digest_only(i);
    }
  }
  return response;
}

v1::PushResponse PushSession::CommittedMessage(v1::VersionSummary summary) const {
  v1::PushResponse response;
  *response.mutable_committed()->mutable_summary() = std::move(summary);
  return response;
}

v1::PushResponse PushSession::WaitingMessage() const {
  v1::PushResponse response;
  v1::PushWaiting& waiting = *response.mutable_waiting();
  if (lacks_memory()) {
    waiting.set_for_workers(true);
    return response;
  }
  const std::vector<uint32_t> missing = builder_->version()->rank_shards().Missing();
  waiting.mutable_ranks()->Assign(missing.begin(), missing.begin() + std::min(missing.size(), kMaxRanksNamed));
  waiting.set_missing(missing.size());
  return response;
}

void PushSession::Overslept(Clock::duration time) {
  declared_at_ += time;
  if (chunks_.has_value()) chunks_->Overslept(time);
}

absl::Status PushSession::CheckPatience() const {
  return lacks_memory() ? chunks_->CheckPatience() : CheckRanksPatience();
}

absl::Status PushSession::CheckRanksPatience() const {
  const absl::Duration patience = absl::FromChrono(context_.admission.limits.rank_join_timeout);
  if (opened_ || Clock::now() - declared_at_ < context_.admission.limits.rank_join_timeout) return absl::OkStatus();
  std::vector<uint32_t> missing = builder_->version()->rank_shards().Missing();
  const size_t count = missing.size();
  missing.resize(std::min(count, kMaxRanksNamed));
  return absl::DeadlineExceededError(absl::StrCat(
      Label(), ": ", count, " of ", options_->world, " ranks did not declare their shards within ",
      absl::FormatDuration(patience), ": ", absl::StrJoin(missing, ", "), count > missing.size() ? ", ..." : "",
      "; the limit is --rank-timeout. If they may come so late, ", HowToRaise("rank_timeout")));
}

absl::Status PushSession::CheckTakesChunks() const {
  if (builder_ == nullptr) return OutOfOrder("a chunk before the last declare");
  return committing_ ? OutOfOrder("a chunk after commit") : absl::OkStatus();
}

absl::StatusOr<PushSession::Answer> PushSession::HandleBatch(absl::Span<const ChunkView> batch) {
  if (absl::Status status = CheckTakesChunks(); !status.ok()) return status;
  return chunks_->HandleBatch(batch);
}

absl::StatusOr<PushSession::Answer> PushSession::HandleSharedChunk(const v1::SharedChunk& shared) {
  if (absl::Status status = CheckTakesChunks(); !status.ok()) return status;
  if (segment_ == nullptr) return OutOfOrder("a chunk in shared memory that the service has not mapped");
  return chunks_->HandleShared(shared);
}

absl::Status PushSession::Commit() {
  if (builder_ == nullptr) return OutOfOrder("commit before the last declare");
  if (!opened_) return OutOfOrder("commit before all ranks have declared");
  if (committing_) return OutOfOrder("a second commit");
  committing_ = true;
  absl::StatusOr<v1::VersionSummary> summary = builder_->Commit();
  if (!summary.ok()) return summary.status();
  if (summary->state() != v1::VERSION_STATE_COMMITTED) return absl::OkStatus();
  context_.admission.log.Info("version committed",
                              {{"model", options_->model},
                               {"version", absl::StrCat(options_->version)},
                               {"bytes", absl::StrCat(summary->bytes())},
                               {"seconds", absl::StrFormat("%.3f", static_cast<double>(summary->elapsed_ns()) / 1e9)}});
  return absl::OkStatus();
}

absl::StatusOr<PushSession::Answer> PushSession::Abort(const v1::AbortPush& abort) {
  if (builder_ == nullptr) return OutOfOrder("abort before the last declare");
  Abandon(abort.reason().empty() ? "its trainer aborted it" : Printable(abort.reason()));
  finished_ = true;
  v1::PushResponse response;
  *response.mutable_aborted()->mutable_summary() = builder_->version()->Summary();
  return response;
}

}  // namespace refit
