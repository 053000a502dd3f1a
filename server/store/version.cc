#include "server/store/version.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/net/states.h"
#include "common/wire/digest.h"

namespace refit {
namespace {

SlabPlan PlanSlabs(const VersionPlan& plan) {
  std::vector<uint64_t> sizes;
  sizes.reserve(plan.outputs.size());
  for (const VersionPlan::Output& output : plan.outputs) sizes.push_back(output.planned.hf.ByteSize());
  return SlabPlan(sizes);
}

}  // namespace

Version::Version(VersionIdentity identity, VersionPlan plan, uint64_t chunk_bytes, std::shared_ptr<TensorMemory> memory)
    : identity_(std::move(identity)),
      plan_(std::move(plan)),
      chunk_bytes_(chunk_bytes),
      memory_(std::move(memory)),
      rank_shards_(plan_.native, identity_.world),
      lifecycle_(Label(), identity_.hold_installs),
      tensors_(plan_, chunk_bytes_) {
  absl::MutexLock lock(&mutex_);
  bytes_ = tensors_.bytes();
  if (memory_ != nullptr && !is_streamed()) slabs_ = Slabs(PlanSlabs(plan_));
  for (size_t i = 0; i < plan_.native.size(); ++i) {
    if (!plan_.outputs_of_native[i].empty()) declared_bytes_ += plan_.native[i].ByteSize();
  }
}

absl::StatusOr<std::shared_ptr<Version>> Version::Restore(VersionIdentity identity, VersionPlan plan,
                                                          const v1::VersionSummary& summary,
                                                          std::vector<StoredTensor> tensors) {
  auto version = std::make_shared<Version>(std::move(identity), std::move(plan), summary.chunk_bytes(), nullptr);
  absl::MutexLock lock(&version->mutex_);
  for (size_t i = 0; i < tensors.size(); ++i) {
    // No builder is at work, so nothing writes the memory.
    version->tensors_.SetData(i, std::const_pointer_cast<Buffer>(std::move(tensors[i].data)));
    for (size_t chunk = 0; chunk < tensors[i].chunk_digests.size(); ++chunk) {
      version->tensors_.SetReady(i, chunk, tensors[i].chunk_digests[chunk]);
    }
  }
  if (absl::Status status = version->SetCommittedLocked(summary.manifest_digest()); !status.ok()) return status;
  version->restored_ = summary;
  version->spooled_ = true;
  return version;
}

uint64_t Version::chunk_count(size_t tensor) const { return ChunkCount(spec(tensor).ByteSize(), chunk_bytes_); }

SlabPlan Version::slab_plan() const {
  absl::MutexLock lock(&mutex_);
  return slabs_.plan();
}

std::string Version::Label() const { return absl::StrCat(identity_.model, "/", identity_.number); }

v1::VersionState Version::state() const {
  absl::MutexLock lock(&mutex_);
  return lifecycle_.state();
}

v1::VersionSummary Version::Summary() const {
  absl::MutexLock lock(&mutex_);
  v1::VersionSummary summary = restored_.value_or(v1::VersionSummary());
  summary.set_state(lifecycle_.state());
  summary.set_spooled(spooled_);
  summary.set_mapped(restored_.has_value());
  summary.set_installs_held(
      lifecycle_.installs_held());  // the hold ends with the process, which alone could be told of the release
  if (restored_.has_value()) return summary;
  summary.set_model(identity_.model);
  summary.set_version(identity_.number);
  summary.set_tensors(size());
  summary.set_bytes(bytes_);
  summary.set_chunk_bytes(chunk_bytes_);
  if (WasCommitted(lifecycle_.state())) summary.set_manifest_digest(manifest_digest_);
  summary.set_adapter(identity_.adapter);
  summary.set_converted_bytes(tensors_.ready_bytes());
  summary.set_received_bytes(received_bytes_);
  summary.set_declared_bytes(declared_bytes_);
  summary.set_declared_tensors(plan_.native.size());
  times_.Fill(summary);
  summary.set_abort_reason(lifecycle_.abort_reason());
  summary.set_world(identity_.world);
  summary.set_joined_ranks(rank_shards_.joined());
  summary.set_committed_ranks(rank_shards_.committed());
  summary.set_trainer_epoch(identity_.trainer_epoch);
  if (!identity_.mirrored.has_value()) return summary;
  summary.set_opened_at_ns(identity_.mirrored->opened_at_ns);
  summary.set_received_bytes(summary.converted_bytes());  // what came are the HF tensors
  summary.set_declared_bytes(bytes_);
  summary.set_declared_tensors(size());
  return summary;
}

bool Version::is_fenced() const {
  absl::MutexLock lock(&mutex_);
  return lifecycle_.is_fenced();
}

bool Version::is_spooled() const {
  absl::MutexLock lock(&mutex_);
  return spooled_;
}

void Version::SetSpooled(bool spooled) {
  absl::MutexLock lock(&mutex_);
  spooled_ = spooled;
}

std::optional<uint64_t> Version::tensor_digest(size_t tensor) const {
  absl::MutexLock lock(&mutex_);
  return tensors_.digest(tensor);
}

absl::Status Version::CheckPullable() const {
  absl::MutexLock lock(&mutex_);
  return lifecycle_.CheckPullable();
}

uint64_t Version::reserved_bytes() const {
  absl::MutexLock lock(&mutex_);
  if (!lifecycle_.holds_data() || restored_.has_value()) return 0;
  if (!is_streamed()) return bytes_;
  return tensors_.held_bytes();
}

absl::Status Version::CheckReadable(size_t tensor) const {
  if (absl::Status status = lifecycle_.CheckHoldsData(); !status.ok()) return status;
  if (tensor >= kept_from_) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat("version ", Label(), " is streamed to ", identity_.stream_to,
                                                    identity_.stream_to == 1 ? " worker" : " workers", ", and its ",
                                                    kept_from_, " first tensors are gone; pull the next version"));
}

absl::StatusOr<std::optional<Version::Chunk>> Version::GetChunk(size_t tensor, uint64_t chunk) const {
  absl::MutexLock lock(&mutex_);
  if (absl::Status status = CheckReadable(tensor); !status.ok()) return status;
  const std::optional<uint64_t> chunk_digest = tensors_.chunk_digest(tensor, chunk);
  if (!chunk_digest.has_value()) return std::nullopt;
  // The last chunk carries the tensor's digest. It may be complete before the others, because shards arrive in any
  // order.
  const bool ends = chunk + 1 == chunk_count(tensor);
  if (ends && !tensors_.digest(tensor).has_value()) return std::nullopt;
  Chunk result;
  result.owner = tensors_.data(tensor);
  result.bytes = ChunkBytes(spec(tensor), *result.owner, chunk, chunk_bytes_);
  result.digest = *chunk_digest;
  if (ends) result.tensor_digest = tensors_.digest(tensor);
  return result;
}

absl::StatusOr<std::optional<Version::Bytes>> Version::GetBytes(size_t tensor, uint64_t begin, uint64_t end) const {
  absl::MutexLock lock(&mutex_);
  if (absl::Status status = CheckReadable(tensor); !status.ok()) return status;
  const uint64_t end_chunk = begin == end ? 0 : (end - 1) / chunk_bytes_ + 1;
  if (!tensors_.AreReady(tensor, begin / chunk_bytes_, end_chunk)) return std::nullopt;
  const std::shared_ptr<Buffer>& data = tensors_.data(tensor);
  if (data == nullptr) return Bytes{};
  return Bytes{data, absl::MakeConstSpan(data->data(), spec(tensor).ByteSize())};
}

std::optional<uint64_t> Version::chunk_digest(size_t tensor, uint64_t chunk) const {
  absl::MutexLock lock(&mutex_);
  return tensors_.chunk_digest(tensor, chunk);
}

absl::StatusOr<std::shared_ptr<const Buffer>> Version::GetTensor(size_t tensor) const {
  absl::MutexLock lock(&mutex_);
  if (absl::Status status = CheckReadable(tensor); !status.ok()) return status;
  if (!tensors_.digest(tensor).has_value()) {
    return absl::UnavailableError(absl::StrCat("tensor ", spec(tensor).name, " of version ", Label(), ": ",
                                               tensors_.ready_chunks(tensor), " of ", chunk_count(tensor),
                                               " chunks are converted; ask again later"));
  }
  return tensors_.data(tensor);
}

bool Version::IsOver(const Awaited& awaited) const {
  if (!lifecycle_.is_open()) return true;
  switch (awaited.what) {
    case Awaited::What::kChunks:
      return tensors_.AreReady(awaited.tensor, awaited.first_chunk, awaited.end_chunk);
    case Awaited::What::kRanks:
      return rank_shards_.is_complete();
    case Awaited::What::kEnd:
      break;
  }
  return false;
}

uint64_t Version::Wait(const Awaited& awaited, std::function<void()> wake) {
  absl::MutexLock lock(&mutex_);
  return IsOver(awaited) ? 0 : waiters_.Add(awaited, std::move(wake));
}

uint64_t Version::WaitForChunk(size_t tensor, uint64_t chunk, std::function<void()> wake) {
  const bool ends = chunk + 1 == chunk_count(tensor);  // the last chunk carries the digest of all
  return Wait({Awaited::What::kChunks, tensor, ends ? 0 : chunk, chunk + 1}, std::move(wake));
}

uint64_t Version::WaitForBytes(size_t tensor, uint64_t begin, uint64_t end, std::function<void()> wake) {
  const uint64_t end_chunk = begin == end ? 0 : (end - 1) / chunk_bytes_ + 1;
  return Wait({Awaited::What::kChunks, tensor, begin / chunk_bytes_, end_chunk}, std::move(wake));
}

uint64_t Version::WaitForRanks(std::function<void()> wake) { return Wait({Awaited::What::kRanks}, std::move(wake)); }

uint64_t Version::WaitForEnd(std::function<void()> wake) { return Wait({Awaited::What::kEnd}, std::move(wake)); }

void Version::CancelWait(uint64_t id) {
  absl::MutexLock lock(&mutex_);
  waiters_.Remove(id);
}

void Version::WakeReady() {
  Wakes wakes;
  {
    absl::MutexLock lock(&mutex_);
    wakes = TakeReadyLocked();
  }
  for (const auto& wake : wakes) wake();
}

Version::Wakes Version::TakeReadyLocked() {
  return waiters_.TakeIf([this](const Awaited& awaited) {
    mutex_.AssertHeld();
    return IsOver(awaited);
  });
}

absl::StatusOr<std::shared_ptr<Buffer>> Version::DataFor(size_t tensor, bool within) {
  absl::MutexLock lock(&mutex_);
  if (absl::Status status = lifecycle_.CheckHoldsData(); !status.ok()) return status;
  if (tensors_.data(tensor) == nullptr) {
    const auto get = [this](size_t size) { return memory_->Get(size); };
    absl::StatusOr<std::shared_ptr<Buffer>> data = within          ? memory_->TryGet(spec(tensor).ByteSize())
                                                   : is_streamed() ? get(spec(tensor).ByteSize())
                                                                   : slabs_.Get(tensor, get);
    if (!data.ok()) return data.status();
    tensors_.SetData(tensor, *std::move(data));
  }
  return tensors_.data(tensor);
}

ChunkCounts Version::NoChunks(size_t tensor) const {
  return {spec(tensor).ByteSize(), ElementSize(spec(tensor).dtype), chunk_bytes_};
}

void Version::Publish(size_t tensor, const ChunkCounts& written) {
  ChunkProgress::Chunks whole;
  std::shared_ptr<Buffer> data;
  {
    absl::MutexLock lock(&mutex_);
    data = tensors_.data(tensor);
    if (data == nullptr) return;  // dropped meanwhile, because the version was aborted
    whole = tensors_.Take(tensor, written);
  }
  if (whole.empty()) return;
  // Digested without the lock: these chunks are complete, with the bytes of all ranks, and are not written any more.
  absl::InlinedVector<uint64_t, 1> digests;
  for (const uint64_t chunk : whole)
    digests.push_back(DigestBytes(ChunkBytes(spec(tensor), *data, chunk, chunk_bytes_)));
  Wakes wakes;
  {
    Dropped dropped;
    absl::MutexLock lock(&mutex_);
    for (size_t i = 0; i < whole.size(); ++i) tensors_.SetReady(tensor, whole[i], digests[i]);
    DropPassed(dropped);  // all workers may have passed this tensor already
    wakes = TakeReadyLocked();
  }
  for (const auto& wake : wakes) wake();
}

absl::StatusOr<bool> Version::Join(uint32_t rank, std::vector<Box> boxes) {
  absl::StatusOr<bool> is_last = rank_shards_.Join(rank, std::move(boxes));
  if (!is_last.ok() || !*is_last) return is_last;
  {
    absl::MutexLock lock(&mutex_);
    times_.Assembled();
  }
  WakeReady();
  return is_last;
}

void Version::AddConverted(uint64_t bytes, VersionTimes::Clock::time_point begin) {
  received_bytes_ += bytes;
  times_.Converted(begin);
}

absl::Status Version::SetCommitted(std::optional<uint64_t> expected_digest) {
  absl::MutexLock lock(&mutex_);
  return SetCommittedLocked(expected_digest);
}

absl::Status Version::SetCommittedLocked(std::optional<uint64_t> expected_digest) {
  if (absl::Status status = lifecycle_.CheckOpen(); !status.ok()) return status;
  if (tensors_.incomplete() != 0) {
    return absl::InternalError(
        absl::StrCat("version ", Label(), " has ", tensors_.incomplete(), " tensors that are not converted"));
  }
  manifest_digest_ = tensors_.ManifestDigest();
  if (expected_digest.has_value() && manifest_digest_ != *expected_digest) {
    return absl::DataLossError(absl::StrFormat("version %s: its manifest digest was %016x, but its bytes give %016x",
                                               Label(), *expected_digest, manifest_digest_));
  }
  lifecycle_.Commit();
  times_.Closed();
  return absl::OkStatus();
}

bool Version::SetAborted(std::string reason, bool fenced) {
  Dropped dropped;
  absl::MutexLock lock(&mutex_);
  if (!lifecycle_.is_open()) return false;
  lifecycle_.Abort(std::move(reason), fenced);
  times_.Closed();
  DropDataLocked(dropped);
  return true;
}

absl::Status Version::SetReleased() {
  absl::MutexLock lock(&mutex_);
  return lifecycle_.ReleaseInstalls();
}

void Version::SetRetired() {
  Dropped dropped;
  absl::MutexLock lock(&mutex_);
  lifecycle_.Retire();
  if (readers_.empty()) DropDataLocked(dropped);
}

void Version::DropData() {
  Dropped dropped;
  absl::MutexLock lock(&mutex_);
  DropDataLocked(dropped);
}

void Version::DropDataLocked(Dropped& dropped) {
  if (!lifecycle_.DropData()) return;
  tensors_.DropAll(dropped);
  slabs_ = {};
}

bool Version::HoldsData() const {
  absl::MutexLock lock(&mutex_);
  return lifecycle_.holds_data();
}

void Version::DropPassed(Dropped& dropped) {
  if (!is_streamed()) return;
  size_t lacked = size();  // by any reader
  for (const size_t position : readers_) lacked = std::min(lacked, position);
  for (; kept_from_ < lacked; ++kept_from_) {
    if (tensors_.passes(kept_from_) < identity_.stream_to || !tensors_.digest(kept_from_).has_value()) return;
    tensors_.Drop(kept_from_, dropped);
  }
}

Version::Reader::Reader(std::shared_ptr<Version> version) : version_(std::move(version)) {
  absl::MutexLock lock(&version_->mutex_);
  position_ = version_->readers_.insert(version_->readers_.end(), 0);
}

void Version::Reader::StartAt(size_t tensor) {
  absl::MutexLock lock(&version_->mutex_);
  *position_ = tensor;
}

void Version::Reader::Pass(size_t tensor) {
  Dropped dropped;
  absl::MutexLock lock(&version_->mutex_);
  for (; *position_ < tensor; ++*position_) version_->tensors_.Pass(*position_);
  version_->DropPassed(dropped);
}

Version::Reader::~Reader() {
  if (version_ == nullptr) return;  // moved-from
  Dropped dropped;
  absl::MutexLock lock(&version_->mutex_);
  version_->readers_.erase(position_);
  version_->DropPassed(dropped);
  if (version_->readers_.empty() && version_->lifecycle_.is_retired()) version_->DropDataLocked(dropped);
}

}  // namespace refit
