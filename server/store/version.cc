#include "server/store/version.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/net/states.h"
#include "common/net/wall_clock.h"
#include "common/wire/digest.h"

namespace refit {
namespace {

using Clock = std::chrono::steady_clock;

uint64_t NsBetween(Clock::time_point begin, Clock::time_point end) {
  return std::chrono::nanoseconds(std::max(end - begin, Clock::duration::zero())).count();
}

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
      assembly_(plan_.native, identity_.world),
      opened_at_ns_(UnixNanos()),
      opened_at_(Clock::now()) {
  absl::MutexLock lock(&mutex_);
  installs_held_ = identity_.hold_installs;
  incomplete_tensors_ = size();
  tensors_.reserve(size());
  for (size_t i = 0; i < size(); ++i) {
    bytes_ += spec(i).ByteSize();
    tensors_.push_back({nullptr, 0, ChunkProgress(spec(i).ByteSize(), chunk_bytes_)});
    tensors_.back().chunk_digests.resize(chunk_count(i));
  }
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
    // Nobody builds it, so nobody writes.
    version->tensors_[i].data = std::const_pointer_cast<Buffer>(std::move(tensors[i].data));
    for (size_t chunk = 0; chunk < tensors[i].chunk_digests.size(); ++chunk) {
      version->SetReady(i, chunk, tensors[i].chunk_digests[chunk]);
    }
  }
  if (absl::Status status = version->SetCommittedLocked(); !status.ok()) return status;
  if (version->manifest_digest_ != summary.manifest_digest()) {
    return absl::DataLossError(absl::StrFormat("version %s: its manifest digest was %016x, but its bytes give %016x",
                                               version->Label(), summary.manifest_digest(), version->manifest_digest_));
  }
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
  return state_;
}

v1::VersionSummary Version::Summary() const {
  absl::MutexLock lock(&mutex_);
  v1::VersionSummary summary = restored_.value_or(v1::VersionSummary());
  summary.set_state(state_);
  summary.set_spooled(spooled_);
  summary.set_mapped(restored_.has_value());
  summary.set_installs_held(installs_held_);  // does not outlive the process that was to be told of the release
  if (restored_.has_value()) return summary;
  summary.set_model(identity_.model);
  summary.set_version(identity_.number);
  summary.set_tensors(size());
  summary.set_bytes(bytes_);
  summary.set_chunk_bytes(chunk_bytes_);
  if (WasCommitted(state_)) {
    summary.set_manifest_digest(manifest_digest_);
  }
  summary.set_adapter(identity_.adapter);
  summary.set_converted_bytes(converted_bytes_);
  summary.set_received_bytes(received_bytes_);
  summary.set_declared_bytes(declared_bytes_);
  summary.set_declared_tensors(plan_.native.size());
  summary.set_opened_at_ns(opened_at_ns_);
  summary.set_elapsed_ns(NsBetween(opened_at_, closed_at_.value_or(Clock::now())));
  if (closed_at_.has_value()) summary.set_closed_at_ns(opened_at_ns_ + static_cast<int64_t>(summary.elapsed_ns()));
  if (assembled_at_.has_value()) {
    summary.set_open_ns(NsBetween(opened_at_, *assembled_at_));
    summary.set_receive_ns(NsBetween(*assembled_at_, received_at_));
    summary.set_convert_ns(convert_ns_);
  }
  summary.set_abort_reason(abort_reason_);
  summary.set_world(identity_.world);
  summary.set_joined_ranks(assembly_.joined());
  summary.set_committed_ranks(assembly_.committed());
  summary.set_trainer_epoch(identity_.trainer_epoch);
  return summary;
}

bool Version::is_fenced() const {
  absl::MutexLock lock(&mutex_);
  return fenced_;
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
  return tensors_[tensor].digest;
}

absl::Status Version::CheckPullable() const {
  absl::MutexLock lock(&mutex_);
  if (state_ == v1::VERSION_STATE_OPEN || state_ == v1::VERSION_STATE_COMMITTED) return absl::OkStatus();
  const bool aborted = state_ == v1::VERSION_STATE_ABORTED;
  return absl::FailedPreconditionError(absl::StrCat("version ", Label(), " is ", aborted ? "aborted" : "retired",
                                                    " and can no longer be pulled", aborted ? ": " : "",
                                                    abort_reason_));
}

absl::Span<const std::byte> Version::ChunkBytes(size_t tensor, uint64_t chunk, const Buffer& data) const {
  const uint64_t begin = chunk * chunk_bytes_;
  return absl::MakeConstSpan(data.data(), spec(tensor).ByteSize()).subspan(begin, chunk_bytes_);
}

absl::Status Version::DataStatus() const {
  if (state_ == v1::VERSION_STATE_ABORTED) {
    return absl::AbortedError(absl::StrCat("version ", Label(), " was aborted: ", abort_reason_));
  }
  if (!holds_data_) {
    return absl::FailedPreconditionError(
        absl::StrCat("version ", Label(), " is retired and its memory was given to a newer one; pull a newer version"));
  }
  return absl::OkStatus();
}

uint64_t Version::reserved_bytes() const {
  absl::MutexLock lock(&mutex_);
  if (!holds_data_ || restored_.has_value()) return 0;
  if (!is_streamed()) return bytes_;
  uint64_t bytes = 0;
  for (const Tensor& tensor : tensors_) bytes += tensor.data == nullptr ? 0 : tensor.data->size();
  return bytes;
}

absl::Status Version::CheckKept(size_t tensor) const {
  if (tensor >= kept_from_) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat("version ", Label(), " is streamed to ", identity_.stream_to,
                                                    identity_.stream_to == 1 ? " worker" : " workers", ", and its ",
                                                    kept_from_, " first tensors are gone; pull the next version"));
}

absl::StatusOr<std::optional<Version::Chunk>> Version::GetChunk(size_t tensor, uint64_t chunk) const {
  absl::MutexLock lock(&mutex_);
  if (absl::Status status = DataStatus(); !status.ok()) return status;
  if (absl::Status status = CheckKept(tensor); !status.ok()) return status;
  const Tensor& t = tensors_[tensor];
  if (!t.chunk_digests[chunk].has_value()) return std::nullopt;
  // The last chunk carries the digest of all, and shards may end before others that come first.
  const bool ends = chunk + 1 == chunk_count(tensor);
  if (ends && !t.digest.has_value()) return std::nullopt;
  Chunk result;
  result.owner = t.data;
  result.bytes = ChunkBytes(tensor, chunk, *t.data);
  result.digest = *t.chunk_digests[chunk];
  if (ends) result.tensor_digest = t.digest;
  return result;
}

absl::StatusOr<std::optional<Version::Bytes>> Version::GetBytes(size_t tensor, uint64_t begin, uint64_t end) const {
  absl::MutexLock lock(&mutex_);
  if (absl::Status status = DataStatus(); !status.ok()) return status;
  if (absl::Status status = CheckKept(tensor); !status.ok()) return status;
  const uint64_t end_chunk = begin == end ? 0 : (end - 1) / chunk_bytes_ + 1;
  if (!AreReady(tensor, begin / chunk_bytes_, end_chunk)) return std::nullopt;
  const std::shared_ptr<Buffer>& data = tensors_[tensor].data;
  if (data == nullptr) return Bytes{};
  return Bytes{data, absl::MakeConstSpan(data->data(), spec(tensor).ByteSize())};
}

absl::StatusOr<std::shared_ptr<const Buffer>> Version::GetTensor(size_t tensor) const {
  absl::MutexLock lock(&mutex_);
  if (absl::Status status = DataStatus(); !status.ok()) return status;
  if (absl::Status status = CheckKept(tensor); !status.ok()) return status;
  const Tensor& t = tensors_[tensor];
  if (!t.digest.has_value()) {
    return absl::UnavailableError(absl::StrCat("tensor ", spec(tensor).name, " of version ", Label(), ": ",
                                               t.ready_chunks, " of ", chunk_count(tensor),
                                               " chunks are converted; ask again later"));
  }
  return t.data;
}

bool Version::AreReady(size_t tensor, uint64_t first_chunk, uint64_t end_chunk) const {
  const Tensor& t = tensors_[tensor];
  if (t.digest.has_value()) return true;
  for (uint64_t chunk = first_chunk; chunk < end_chunk; ++chunk) {
    if (!t.chunk_digests[chunk].has_value()) return false;
  }
  return true;
}

bool Version::IsOver(const Waiter& waiter) const {
  if (state_ != v1::VERSION_STATE_OPEN) return true;
  switch (waiter.what) {
    case Waiter::For::kChunks:
      return AreReady(waiter.tensor, waiter.first_chunk, waiter.end_chunk);
    case Waiter::For::kRanks:
      return assembly_.is_complete();
    case Waiter::For::kEnd:
      break;
  }
  return false;
}

uint64_t Version::Wait(Waiter waiter) {
  absl::MutexLock lock(&mutex_);
  if (IsOver(waiter)) return 0;
  waiters_.emplace(next_waiter_, std::move(waiter));
  return next_waiter_++;
}

uint64_t Version::WaitForChunk(size_t tensor, uint64_t chunk, std::function<void()> wake) {
  const bool ends = chunk + 1 == chunk_count(tensor);  // and carries the digest of all
  return Wait({Waiter::For::kChunks, tensor, ends ? 0 : chunk, chunk + 1, std::move(wake)});
}

uint64_t Version::WaitForBytes(size_t tensor, uint64_t begin, uint64_t end, std::function<void()> wake) {
  const uint64_t end_chunk = begin == end ? 0 : (end - 1) / chunk_bytes_ + 1;
  return Wait({Waiter::For::kChunks, tensor, begin / chunk_bytes_, end_chunk, std::move(wake)});
}

uint64_t Version::WaitForRanks(std::function<void()> wake) {
  return Wait({Waiter::For::kRanks, 0, 0, 0, std::move(wake)});
}

uint64_t Version::WaitForEnd(std::function<void()> wake) { return Wait({Waiter::For::kEnd, 0, 0, 0, std::move(wake)}); }

void Version::CancelWait(uint64_t id) {
  absl::MutexLock lock(&mutex_);
  waiters_.erase(id);
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
  Wakes wakes;
  for (auto it = waiters_.begin(); it != waiters_.end();) {
    if (IsOver(it->second)) {
      wakes.push_back(std::move(it->second.wake));
      it = waiters_.erase(it);
    } else {
      ++it;
    }
  }
  return wakes;
}

absl::StatusOr<std::shared_ptr<Buffer>> Version::DataFor(size_t tensor, bool within) {
  absl::MutexLock lock(&mutex_);
  if (absl::Status status = DataStatus(); !status.ok()) return status;
  Tensor& t = tensors_[tensor];
  if (t.data == nullptr) {
    const auto get = [this](size_t size) { return memory_->Get(size); };
    absl::StatusOr<std::shared_ptr<Buffer>> data = within          ? memory_->TryGet(spec(tensor).ByteSize())
                                                   : is_streamed() ? get(spec(tensor).ByteSize())
                                                                   : slabs_.Get(tensor, get);
    if (!data.ok()) return data.status();
    t.data = *std::move(data);
  }
  return t.data;
}

ChunkCounts Version::NoChunks(size_t tensor) const {
  return {spec(tensor).ByteSize(), ElementSize(spec(tensor).dtype), chunk_bytes_};
}

void Version::Publish(size_t tensor, const ChunkCounts& written) {
  ChunkProgress::Chunks whole;
  std::shared_ptr<Buffer> data;
  {
    absl::MutexLock lock(&mutex_);
    Tensor& t = tensors_[tensor];
    if (t.data == nullptr) return;  // dropped meanwhile: the version was aborted
    data = t.data;
    whole = t.progress.Take(written);
    if (spec(tensor).ByteSize() == 0) whole = {0};
  }
  if (whole.empty()) return;
  // Digest outside the lock: all ranks' bytes are in these chunks, and nobody writes there any more.
  absl::InlinedVector<uint64_t, 1> digests;
  for (const uint64_t chunk : whole) digests.push_back(DigestBytes(ChunkBytes(tensor, chunk, *data)));
  Wakes wakes;
  {
    Dropped dropped;
    absl::MutexLock lock(&mutex_);
    for (size_t i = 0; i < whole.size(); ++i) SetReady(tensor, whole[i], digests[i]);
    DropPassed(dropped);  // every worker may have left this tensor out
    wakes = TakeReadyLocked();
  }
  for (const auto& wake : wakes) wake();
}

void Version::SetReady(size_t tensor, uint64_t chunk, uint64_t digest) {
  Tensor& t = tensors_[tensor];
  t.chunk_digests[chunk] = digest;
  converted_bytes_ += std::min(chunk_bytes_, spec(tensor).ByteSize() - chunk * chunk_bytes_);
  if (++t.ready_chunks < t.chunk_digests.size()) return;
  absl::InlinedVector<uint64_t, 1> blocks;
  if (spec(tensor).ByteSize() != 0) {
    for (const std::optional<uint64_t>& block : t.chunk_digests) blocks.push_back(*block);
  }
  t.digest = TensorDigest(blocks);
  --incomplete_tensors_;
}

absl::StatusOr<bool> Version::Join(uint32_t rank, std::vector<Box> boxes) {
  absl::StatusOr<bool> is_last = assembly_.Join(rank, std::move(boxes));
  if (!is_last.ok() || !*is_last) return is_last;
  {
    absl::MutexLock lock(&mutex_);
    assembled_at_ = Clock::now();
    received_at_ = *assembled_at_;
  }
  WakeReady();
  return is_last;
}

void Version::AddConverted(uint64_t bytes, Clock::time_point begin) {
  const Clock::time_point now = Clock::now();
  received_bytes_ += bytes;
  received_at_ = now;
  convert_ns_ += NsBetween(begin, now);
}

absl::Status Version::SetCommitted() {
  absl::MutexLock lock(&mutex_);
  return SetCommittedLocked();
}

absl::Status Version::SetCommittedLocked() {
  if (state_ == v1::VERSION_STATE_ABORTED) return DataStatus();
  if (state_ != v1::VERSION_STATE_OPEN) {
    return absl::FailedPreconditionError(absl::StrCat("version ", Label(), " is committed already"));
  }
  if (incomplete_tensors_ != 0) {
    return absl::InternalError(
        absl::StrCat("version ", Label(), " has ", incomplete_tensors_, " tensors that are not converted"));
  }
  ManifestDigester digester;
  for (size_t i = 0; i < size(); ++i) digester.Add(spec(i), *tensors_[i].digest);
  manifest_digest_ = digester.Finish();
  state_ = v1::VERSION_STATE_COMMITTED;
  closed_at_ = Clock::now();
  return absl::OkStatus();
}

bool Version::SetAborted(std::string reason, bool fenced) {
  Dropped dropped;
  absl::MutexLock lock(&mutex_);
  if (state_ != v1::VERSION_STATE_OPEN) return false;
  state_ = v1::VERSION_STATE_ABORTED;
  abort_reason_ = std::move(reason);
  fenced_ = fenced;
  closed_at_ = Clock::now();
  DropDataLocked(dropped);
  return true;
}

absl::Status Version::SetReleased() {
  absl::MutexLock lock(&mutex_);
  if (state_ == v1::VERSION_STATE_ABORTED || state_ == v1::VERSION_STATE_RETIRED) {
    return absl::FailedPreconditionError(absl::StrCat("version ", Label(), " is ",
                                                      state_ == v1::VERSION_STATE_ABORTED ? "aborted" : "retired",
                                                      ": there is nothing to install"));
  }
  installs_held_ = false;
  return absl::OkStatus();
}

void Version::SetRetired() {
  Dropped dropped;
  absl::MutexLock lock(&mutex_);
  state_ = v1::VERSION_STATE_RETIRED;
  if (readers_.empty()) DropDataLocked(dropped);
}

void Version::DropData() {
  Dropped dropped;
  absl::MutexLock lock(&mutex_);
  DropDataLocked(dropped);
}

void Version::DropDataLocked(Dropped& dropped) {
  if (!holds_data_) return;
  holds_data_ = false;
  for (Tensor& t : tensors_) dropped.push_back(std::move(t.data));
  slabs_ = {};
}

bool Version::HoldsData() const {
  absl::MutexLock lock(&mutex_);
  return holds_data_;
}

void Version::DropPassed(Dropped& dropped) {
  if (!is_streamed()) return;
  size_t lacked = size();  // by any reader
  for (const size_t position : readers_) lacked = std::min(lacked, position);
  for (; kept_from_ < lacked; ++kept_from_) {
    Tensor& tensor = tensors_[kept_from_];
    if (tensor.passes < identity_.stream_to || !tensor.digest.has_value()) return;
    dropped.push_back(std::move(tensor.data));
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
  for (; *position_ < tensor; ++*position_) ++version_->tensors_[*position_].passes;
  version_->DropPassed(dropped);
}

Version::Reader::~Reader() {
  if (version_ == nullptr) return;  // moved from
  Dropped dropped;
  absl::MutexLock lock(&version_->mutex_);
  version_->readers_.erase(position_);
  version_->DropPassed(dropped);
  if (version_->readers_.empty() && version_->state_ == v1::VERSION_STATE_RETIRED) version_->DropDataLocked(dropped);
}

}  // namespace refit
