#include "server/pull_session.h"

#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "common/net/byte_buffer.h"
#include "common/wire/digest.h"
#include "server/selection.h"

namespace refit {

absl::StatusOr<std::unique_ptr<PullSession>> PullSession::Start(ServerState& state, const v1::PullRequest& request,
                                                                const std::string& worker, const std::string& peer) {
  if (request.layout() != v1::LAYOUT_WHOLE) {
    return absl::InvalidArgumentError(
        absl::StrCat("layout ", request.layout(), " is not supported; expected LAYOUT_WHOLE"));
  }
  absl::StatusOr<std::shared_ptr<Version>> version = state.store.Find(request.model(), request.version());
  if (!version.ok()) return version.status();
  if (absl::Status status = (*version)->CheckPullable(); !status.ok()) return status;
  absl::StatusOr<std::vector<size_t>> selection = SelectTensors(**version, request.filter(), request.names());
  if (!selection.ok()) return selection.status();
  const uint64_t number = (*version)->number();
  std::unique_ptr<PullSession> session =
      absl::WrapUnique(new PullSession(*std::move(version), *std::move(selection), worker));
  if (absl::Status status = session->SetCursor(request); !status.ok()) return status;
  session->skip_manifest_ = request.skip_manifest();
  session->fleet_ = state.workers.StartPull(request.model(), worker, peer, number, session->SelectedBytes());
  return session;
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
  const TensorSpec& spec = reader_->spec(selection_[tensor_]);
  if (cursor.offset() == spec.ByteSize() && cursor.offset() != 0) {
    ++tensor_;
    return absl::OkStatus();
  }
  if (cursor.offset() > spec.ByteSize() || cursor.offset() % reader_->chunk_bytes() != 0) {
    return absl::InvalidArgumentError(absl::StrCat("resume cursor at offset ", cursor.offset(), " of tensor ",
                                                   spec.ToString(), "; expected a multiple of ", reader_->chunk_bytes(),
                                                   " up to ", spec.ByteSize()));
  }
  chunk_ = cursor.offset() / reader_->chunk_bytes();
  return absl::OkStatus();
}

uint64_t PullSession::SelectedBytes() const {
  uint64_t bytes = 0;
  for (size_t i = tensor_; i < selection_.size(); ++i) bytes += reader_->spec(selection_[i]).ByteSize();
  return bytes - chunk_ * reader_->chunk_bytes();
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
  *response.mutable_header() = reader_->Summary();
  return Serialize(response);
}

grpc::ByteBuffer PullSession::Manifest() {
  v1::PullResponse response;
  *response.mutable_manifest() = MakeManifestPart(*reader_, selection_, manifest_next_);
  manifest_next_ += response.manifest().entries_size();
  if (response.manifest().last()) phase_ = Phase::kChunks;
  return Serialize(response);
}

absl::StatusOr<std::optional<grpc::ByteBuffer>> PullSession::NextChunk() {
  const size_t index = selection_[tensor_];
  absl::StatusOr<std::optional<Version::Chunk>> chunk = reader_->GetChunk(index, chunk_);
  if (!chunk.ok()) return chunk.status();
  if (!chunk->has_value()) return std::nullopt;
  Version::Chunk& ready = **chunk;
  ChunkHeader header;
  header.tensor = tensor_;
  header.offset = chunk_ * reader_->chunk_bytes();
  header.digest = ready.digest;
  header.tensor_digest = ready.tensor_digest;
  sent_bytes_ += ready.bytes.size();
  ++sent_chunks_;
  fleet_->Sent(ready.bytes.size());
  if (++chunk_ == reader_->chunk_count(index)) {
    ++tensor_;
    chunk_ = 0;
  }
  return MakeChunkMessage(header, ready.bytes, std::move(ready.owner));
}

absl::StatusOr<std::optional<grpc::ByteBuffer>> PullSession::Committed() {
  v1::VersionSummary summary = reader_->Summary();
  if (summary.state() == v1::VERSION_STATE_OPEN) return std::nullopt;
  if (summary.state() == v1::VERSION_STATE_ABORTED) {
    return absl::AbortedError(absl::StrCat("version ", Label(), " was aborted: ", summary.abort_reason()));
  }
  ManifestDigester digester;
  for (const size_t index : selection_) digester.Add(reader_->spec(index), reader_->tensor_digest(index).value_or(0));
  phase_ = Phase::kDone;
  v1::PullResponse response;
  v1::PullCommitted& committed = *response.mutable_committed();
  *committed.mutable_summary() = std::move(summary);
  committed.set_sent_bytes(sent_bytes_);
  committed.set_sent_chunks(sent_chunks_);
  committed.set_selection_digest(digester.Finish());
  return Serialize(response);
}

uint64_t PullSession::Wait(std::function<void()> wake) {
  const size_t index = tensor_ < selection_.size() ? selection_[tensor_] : reader_->size();
  return reader_->Wait(index, chunk_, std::move(wake));
}

grpc::ByteBuffer PullSession::WaitingMessage() const {
  v1::PullResponse response;
  v1::Cursor& cursor = *response.mutable_waiting()->mutable_cursor();
  cursor.set_tensor(tensor_);
  cursor.set_offset(chunk_ * reader_->chunk_bytes());
  return Serialize(response);
}

void PullSession::Ended(const absl::Status& status) {
  if (status.ok()) {
    fleet_->Complete();
  } else {
    fleet_->Fail(status);
  }
}

}  // namespace refit
