#include "server/pull/pull_session.h"

#include <google/protobuf/arena.h>

#include <algorithm>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "common/net/address.h"
#include "common/net/byte_buffer.h"
#include "common/net/messages.h"
#include "common/wire/digest.h"
#include "server/access/limit_checks.h"
#include "server/pull/selection.h"
#include "server/pull/selection_digest.h"

namespace refit {

namespace {

absl::Status CheckResumed(const v1::PullRequest& request) {
  if (!request.has_resume() || request.version().selector_case() == v1::VersionSelector::kNumber) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      "resume goes on within one version, and the newest may be another one by now: select it by the number (and "
      "trainer_epoch) of the header of the stream that was cut");
}

}  // namespace

absl::StatusOr<std::unique_ptr<PullSession>> PullSession::Start(PullContext& context, const v1::PullRequest& request,
                                                                const WorkerId& worker, const std::string& peer) {
  if (request.layout() != v1::LAYOUT_WHOLE) {
    return absl::InvalidArgumentError(
        absl::StrCat("layout ", request.layout(), " is not supported; expected LAYOUT_WHOLE"));
  }
  if (absl::Status status = CheckSelection(request, context.admission.limits); !status.ok()) return status;
  if (absl::Status status = CheckResumed(request); !status.ok()) return status;
  absl::StatusOr<std::shared_ptr<Version>> version = context.store.Find(request.model(), request.version());
  if (!version.ok()) return version.status();
  if (absl::Status status = (*version)->CheckPullable(); !status.ok()) return status;
  absl::StatusOr<SelectionRequest> wanted = SelectionOf(request);
  if (!wanted.ok()) return wanted.status();
  absl::StatusOr<std::vector<Selected>> selection = SelectTensors(**version, *wanted);
  if (!selection.ok()) return selection.status();
  if (absl::Status status = context.workers.CheckRoom(worker); !status.ok()) return status;
  const uint64_t number = (*version)->number();
  std::unique_ptr<PullSession> session =
      absl::WrapUnique(new PullSession(context, *std::move(version), *std::move(selection), worker.name));
  if (absl::Status status = session->SetCursor(request); !status.ok()) return status;
  if (request.has_resume()) session->reader_.StartAt(session->PresentTensor());
  session->reader_.Pass(session->PresentTensor());
  session->skip_manifest_ = request.skip_manifest();
  session->batches_ = request.batches();
  if (request.has_installed_version()) {
    const uint64_t present = session->reader_.version()->key().epoch;
    session->installed_ =
        VersionKey{request.has_installed_epoch() ? request.installed_epoch() : present, request.installed_version()};
  }
  // Memory of a streamed version is not shared, because it is freed as soon as it was sent.
  session->shares_ =
      request.shared_memory() && context.shared_sample.has_value() && IsLocal(peer) && !session->reader_->is_streamed();
  if (request.has_base_version()) session->FindBase(context, request);
  session->fleet_ = context.workers.StartPull(worker, peer, number, session->SelectedBytes(), request.has_resume());
  if (session->base_ != nullptr) session->fleet_->SetBase(session->base_->number());
  return session;
}

// The base is a hint: without it everything is sent as it is.
void PullSession::FindBase(PullContext& context, const v1::PullRequest& request) {
  if (shares_) {
    base_refused_ = "the worker maps this service's memory, so nothing is moved";
    return;
  }
  absl::StatusOr<std::unique_ptr<HeldBase>> base = HeldBase::Find(context, request, reader_.version(), selection_);
  if (base.ok()) {
    base_ = *std::move(base);
  } else {
    base_refused_ = std::string(base.status().message());
  }
}

absl::Status PullSession::SetCursor(const v1::PullRequest& request) {
  if (!request.has_resume()) return absl::OkStatus();
  const v1::Cursor& cursor = request.resume();
  if (cursor.tensor() > selection_.size() || (cursor.tensor() == selection_.size() && cursor.offset() != 0)) {
    return absl::InvalidArgumentError(absl::StrCat("resume cursor at tensor ", cursor.tensor(), ", offset ",
                                                   cursor.offset(), ", but ", selection_.size(),
                                                   " tensors are selected"));
  }
  tensor_ = cursor.tensor();
  if (tensor_ == selection_.size()) return absl::OkStatus();
  const TensorPart selected{reader_->spec(selection_[tensor_].tensor), selection_[tensor_].box};
  if (cursor.offset() == selected.ByteSize() && cursor.offset() != 0) {
    ++tensor_;
    return absl::OkStatus();
  }
  if (cursor.offset() > selected.ByteSize() || cursor.offset() % reader_->chunk_bytes() != 0) {
    return absl::InvalidArgumentError(absl::StrCat("resume cursor at offset ", cursor.offset(), " of tensor ",
                                                   selected.ToString(), "; expected a multiple of ",
                                                   reader_->chunk_bytes(), " up to ", selected.ByteSize()));
  }
  chunk_ = cursor.offset() / reader_->chunk_bytes();
  return absl::OkStatus();
}

uint64_t PullSession::SelectedBytes() const {
  uint64_t bytes = 0;
  for (size_t i = tensor_; i < selection_.size(); ++i) bytes += SizeOf(selection_[i]);
  return bytes - chunk_ * reader_->chunk_bytes();
}

size_t PullSession::PresentTensor() const {
  return tensor_ < selection_.size() ? selection_[tensor_].tensor : reader_->size();
}

absl::StatusOr<std::optional<grpc::ByteBuffer>> PullSession::Next() {
  switch (phase_) {
    case Phase::kHeader:
      return Header();
    case Phase::kManifest:
      return Manifest();
    case Phase::kChunks:
      if (tensor_ < selection_.size()) return NextChunk();
      phase_ = Phase::kCommit;
      [[fallthrough]];
    case Phase::kCommit:
      return Committed();
    case Phase::kDone:
      break;
  }
  return std::nullopt;
}

grpc::ByteBuffer PullSession::Header() {
  phase_ = skip_manifest_ ? Phase::kChunks : Phase::kManifest;
  v1::PullResponse response;
  v1::VersionSummary& header = *response.mutable_header();
  header = reader_->Summary();
  if (base_ != nullptr) header.set_base_version(base_->number());
  header.set_base_refused(base_refused_);
  return Serialize(response);
}

grpc::ByteBuffer PullSession::Manifest() {
  google::protobuf::Arena arena;  // there may be very many small entries
  v1::PullResponse& response = *google::protobuf::Arena::CreateMessage<v1::PullResponse>(&arena);
  FillManifestPart(*reader_, selection_, parts_, manifest_next_, *response.mutable_manifest());
  manifest_next_ += response.manifest().entries_size();
  if (response.manifest().last()) phase_ = Phase::kChunks;
  return Serialize(response);
}

uint64_t PullSession::SizeOf(const Selected& selected) const {
  return static_cast<uint64_t>(ElementCount(selected.box)) * ElementSize(reader_->spec(selected.tensor).dtype);
}

const PartChunks& PullSession::PresentPart() {
  if (!part_.has_value()) {
    const Selected& selected = selection_[tensor_];
    part_ = {reader_.version(), selected.tensor,
             selected.whole ? nullptr : parts_.Get(reader_.version(), selected.tensor, selected.box)};
  }
  return *part_;
}

absl::StatusOr<std::optional<PullSession::Outgoing>> PullSession::GetOutgoing() {
  absl::StatusOr<std::optional<Version::Chunk>> chunk = PresentPart().Get(chunk_);
  if (!chunk.ok()) return chunk.status();
  if (!chunk->has_value()) return std::nullopt;
  Version::Chunk& ready = **chunk;
  Outgoing outgoing;
  outgoing.header.tensor = tensor_;
  outgoing.header.offset = chunk_ * reader_->chunk_bytes();
  outgoing.header.digest = ready.digest;
  outgoing.header.tensor_digest = ready.tensor_digest;
  outgoing.sent.tensor_bytes = ready.bytes.size();
  const DeltaChunk delta = base_ != nullptr ? base_->Get(tensor_, chunk_, ready) : DeltaChunk();
  if (delta.kind == EncodedDelta::Kind::kRaw) {
    outgoing.payload = ready.bytes;
    outgoing.owner = std::move(ready.owner);
    outgoing.sent.wire_bytes = outgoing.payload.size();
    return outgoing;
  }
  outgoing.header.encoding = v1::CHUNK_ENCODING_DELTA;
  outgoing.header.decoded_bytes = ready.bytes.size();
  outgoing.header.digest = delta.payload != nullptr ? delta.digest : DigestBytes({});
  outgoing.owner = delta.payload;
  if (delta.payload != nullptr) outgoing.payload = delta.payload->span();
  outgoing.sent.wire_bytes = outgoing.payload.size();
  outgoing.sent.form = delta.payload != nullptr ? SentChunk::Form::kDelta : SentChunk::Form::kUnchanged;
  outgoing.sent.changed_elements = delta.changed;
  return outgoing;
}

// Moves to the place after the chunk that was sent.
void PullSession::Advance(const Outgoing& chunk) {
  sent_.Add(chunk.sent);
  fleet_->Sent(chunk.sent);
  if (++chunk_ < ChunkCount(SizeOf(selection_[tensor_]), reader_->chunk_bytes())) return;
  ++tensor_;
  chunk_ = 0;
  part_.reset();
}

absl::StatusOr<std::optional<grpc::ByteBuffer>> PullSession::NextChunk() {
  absl::StatusOr<std::optional<Outgoing>> chunk = GetOutgoing();
  if (!chunk.ok()) return chunk.status();
  if (!chunk->has_value()) return std::nullopt;
  Outgoing& ready = **chunk;
  if (batches_ && ready.payload.size() < kShortChunkBytes) return NextBatch(std::move(ready));
  if (shares_ && ready.owner->shared_fd() >= 0) return SharedMessage(ready);
  Advance(ready);
  reader_.Pass(PresentTensor());
  return MakeChunkMessage(ready.header, ready.payload, std::move(ready.owner));
}

grpc::ByteBuffer PullSession::SharedMessage(const Outgoing& chunk) {
  v1::PullResponse response;
  v1::SharedChunk& shared = *response.mutable_shared_chunk();
  ToProto(chunk.header, *shared.mutable_chunk());
  *shared.mutable_segment() = lent_.Lend(chunk.owner);
  shared.set_begin(chunk.owner->shared().begin + (chunk.payload.data() - chunk.owner->data()));
  shared.set_bytes(chunk.payload.size());
  Advance(chunk);
  reader_.Pass(PresentTensor());
  return Serialize(response);
}

void PullSession::Forfeit() const { lent_.NeverReuse(); }

// The short chunks that are ready, from `first` on.
grpc::ByteBuffer PullSession::NextBatch(Outgoing first) {
  std::string entries;
  entries.reserve(kMaxBatchBytes);
  for (std::optional<Outgoing> chunk = std::move(first); chunk.has_value();) {
    AppendBatchEntry(chunk->header, chunk->payload, entries);
    Advance(*chunk);
    chunk.reset();
    if (entries.size() >= kBatchBytes || tensor_ == selection_.size()) break;
    absl::StatusOr<std::optional<Outgoing>> next = GetOutgoing();  // the next message reports an error again
    if (next.ok() && next->has_value() && (*next)->payload.size() < kShortChunkBytes) chunk = *std::move(next);
  }
  reader_.Pass(PresentTensor());
  return MakeBatchMessage(std::move(entries));
}

absl::StatusOr<std::optional<grpc::ByteBuffer>> PullSession::Committed() {
  v1::VersionSummary summary = reader_->Summary();
  if (summary.state() == v1::VERSION_STATE_OPEN) return std::nullopt;
  if (summary.state() == v1::VERSION_STATE_ABORTED) {
    return absl::AbortedError(absl::StrCat("version ", Label(), " was aborted: ", summary.abort_reason()));
  }
  const absl::StatusOr<uint64_t> selection_digest = SelectionDigest(reader_.version(), selection_, parts_);
  if (!selection_digest.ok()) return selection_digest.status();
  phase_ = Phase::kDone;
  v1::PullResponse response;
  v1::PullCommitted& committed = *response.mutable_committed();
  // The version may have been retired meanwhile. The marker says COMMITTED all the same: it describes what the worker
  // has received, not what can still be pulled.
  summary.set_state(v1::VERSION_STATE_COMMITTED);
  *committed.mutable_summary() = std::move(summary);
  committed.set_sent_bytes(sent_.wire_bytes);
  committed.set_sent_chunks(sent_.chunks());
  committed.set_selection_digest(*selection_digest);
  committed.set_lease(lease_);
  if (installed_.has_value()) {
    const std::vector<uint64_t> skipped =
        store_.CommittedBetween(reader_->model(), *installed_, reader_.version()->key());
    committed.mutable_skipped()->Assign(skipped.begin(), skipped.end());
  }
  return Serialize(response);
}

uint64_t PullSession::Wait(std::function<void()> wake) {
  if (tensor_ == selection_.size()) return reader_->WaitForEnd(std::move(wake));
  return PresentPart().Wait(chunk_, std::move(wake));
}

grpc::ByteBuffer PullSession::WaitingMessage() const {
  v1::PullResponse response;
  v1::Cursor& cursor = *response.mutable_waiting()->mutable_cursor();
  cursor.set_tensor(tensor_);
  cursor.set_offset(chunk_ * reader_->chunk_bytes());
  return Serialize(response);
}

std::string PullSession::base() const {
  if (base_ != nullptr) return absl::StrCat(base_->number());
  return base_refused_.empty() ? "none" : absl::StrCat("none: ", base_refused_);
}

void PullSession::Ended(const absl::Status& status) {
  if (status.ok()) {
    fleet_->Complete();
  } else {
    fleet_->Fail(status);
  }
}

}  // namespace refit
