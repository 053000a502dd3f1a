#include "server/version.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/wire/digest.h"

namespace refit {

Version::Version(VersionIdentity identity, VersionPlan plan, uint64_t chunk_bytes, std::shared_ptr<BufferPool> pool)
    : identity_(std::move(identity)), plan_(std::move(plan)), chunk_bytes_(chunk_bytes), pool_(std::move(pool)) {
  absl::MutexLock lock(&mutex_);
  opened_at_ns_ = absl::GetCurrentTimeNanos();
  tensors_.resize(size());
  incomplete_tensors_ = size();
  for (size_t i = 0; i < size(); ++i) bytes_ += spec(i).ByteSize();
  for (const TensorSpec& native : plan_.native) declared_bytes_ += native.ByteSize();
}

uint64_t Version::chunk_count(size_t tensor) const { return ChunkCount(spec(tensor).ByteSize(), chunk_bytes_); }

std::string Version::Label() const { return absl::StrCat(identity_.model, "/", identity_.number); }

v1::VersionState Version::state() const {
  absl::MutexLock lock(&mutex_);
  return state_;
}

v1::VersionSummary Version::Summary() const {
  absl::MutexLock lock(&mutex_);
  v1::VersionSummary summary;
  summary.set_model(identity_.model);
  summary.set_version(identity_.number);
  summary.set_state(state_);
  summary.set_tensors(size());
  summary.set_bytes(bytes_);
  summary.set_chunk_bytes(chunk_bytes_);
  if (state_ == v1::VERSION_STATE_COMMITTED || state_ == v1::VERSION_STATE_RETIRED) {
    summary.set_manifest_digest(manifest_digest_);
  }
  summary.set_adapter(identity_.adapter);
  summary.set_converted_bytes(converted_bytes_);
  summary.set_received_bytes(received_bytes_);
  summary.set_declared_bytes(declared_bytes_);
  summary.set_declared_tensors(plan_.native.size());
  summary.set_opened_at_ns(opened_at_ns_);
  summary.set_closed_at_ns(closed_at_ns_);
  summary.set_abort_reason(abort_reason_);
  return summary;
}

std::optional<uint64_t> Version::tensor_digest(size_t tensor) const {
  absl::MutexLock lock(&mutex_);
  if (!tensors_[tensor].complete) return std::nullopt;
  return tensors_[tensor].digest;
}

absl::Status Version::CheckPullable() const {
  const v1::VersionState now = state();
  if (now == v1::VERSION_STATE_OPEN || now == v1::VERSION_STATE_COMMITTED) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat("version ", Label(), " is ",
                                                    now == v1::VERSION_STATE_RETIRED ? "retired" : "aborted",
                                                    " and can no longer be pulled"));
}

bool Version::IsReady(size_t tensor, uint64_t chunk) const {
  if (tensor >= size() || chunk >= chunk_count(tensor)) return false;
  const Tensor& t = tensors_[tensor];
  return t.complete || (chunk + 1) * chunk_bytes_ <= t.ready_bytes;
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

absl::StatusOr<std::optional<Version::Chunk>> Version::GetChunk(size_t tensor, uint64_t chunk) const {
  absl::MutexLock lock(&mutex_);
  if (absl::Status status = DataStatus(); !status.ok()) return status;
  if (!IsReady(tensor, chunk)) return std::nullopt;
  const Tensor& t = tensors_[tensor];
  Chunk result;
  result.owner = t.data;
  const uint64_t begin = chunk * chunk_bytes_;
  const uint64_t end = std::min<uint64_t>(begin + chunk_bytes_, spec(tensor).ByteSize());
  result.bytes = absl::MakeConstSpan(t.data->data() + begin, end - begin);
  result.digest = end == begin ? DigestBytes({}) : t.chunk_digests[chunk];
  if (chunk + 1 == chunk_count(tensor)) result.tensor_digest = t.digest;
  return result;
}

absl::StatusOr<std::shared_ptr<const Buffer>> Version::GetTensor(size_t tensor) const {
  absl::MutexLock lock(&mutex_);
  if (absl::Status status = DataStatus(); !status.ok()) return status;
  if (!tensors_[tensor].complete) {
    return absl::UnavailableError(absl::StrCat("tensor ", spec(tensor).name, " of version ", Label(),
                                               " is converted up to byte ", tensors_[tensor].ready_bytes, " of ",
                                               spec(tensor).ByteSize(), "; ask again later"));
  }
  return tensors_[tensor].data;
}

uint64_t Version::Wait(size_t tensor, uint64_t chunk, std::function<void()> wake) {
  absl::MutexLock lock(&mutex_);
  if (state_ != v1::VERSION_STATE_OPEN || IsReady(tensor, chunk)) return 0;
  waiters_.emplace(next_waiter_, Waiter{tensor, chunk, std::move(wake)});
  return next_waiter_++;
}

void Version::CancelWait(uint64_t id) {
  absl::MutexLock lock(&mutex_);
  waiters_.erase(id);
}

void Version::WakeReady() {
  std::vector<std::function<void()>> wakes;
  {
    absl::MutexLock lock(&mutex_);
    for (auto it = waiters_.begin(); it != waiters_.end();) {
      if (state_ != v1::VERSION_STATE_OPEN || IsReady(it->second.tensor, it->second.chunk)) {
        wakes.push_back(std::move(it->second.wake));
        it = waiters_.erase(it);
      } else {
        ++it;
      }
    }
  }
  for (const auto& wake : wakes) wake();
}

absl::StatusOr<std::shared_ptr<Buffer>> Version::DataFor(size_t tensor) {
  absl::MutexLock lock(&mutex_);
  if (absl::Status status = DataStatus(); !status.ok()) return status;
  Tensor& t = tensors_[tensor];
  if (t.data == nullptr) {
    absl::StatusOr<std::shared_ptr<Buffer>> data = pool_->Get(spec(tensor).ByteSize());
    if (!data.ok()) return data.status();
    t.data = *std::move(data);
  }
  return t.data;
}

void Version::Publish(size_t tensor, uint64_t converted) {
  std::shared_ptr<Buffer> data;
  std::vector<uint64_t> digests;
  uint64_t begin = 0;
  const uint64_t total = spec(tensor).ByteSize();
  {
    absl::MutexLock lock(&mutex_);
    data = tensors_[tensor].data;
    begin = tensors_[tensor].ready_bytes;
  }
  if (data == nullptr) return;  // dropped meanwhile: the version was aborted
  // Digest outside the lock: only this builder writes here, and these bytes are final.
  uint64_t end = begin;
  while (end < converted && (end + chunk_bytes_ <= converted || converted == total)) {
    const uint64_t next = std::min(end + chunk_bytes_, total);
    digests.push_back(DigestBytes(absl::MakeConstSpan(data->data() + end, next - end)));
    end = next;
  }
  {
    absl::MutexLock lock(&mutex_);
    Tensor& t = tensors_[tensor];
    t.chunk_digests.insert(t.chunk_digests.end(), digests.begin(), digests.end());
    t.ready_bytes = end;
    converted_bytes_ += end - begin;
    if (end == total && !t.complete) {
      t.complete = true;
      t.digest = TensorDigest(t.chunk_digests);
      --incomplete_tensors_;
    }
  }
  WakeReady();
}

void Version::AddReceived(uint64_t bytes) {
  absl::MutexLock lock(&mutex_);
  received_bytes_ += bytes;
}

absl::Status Version::SetCommitted() {
  {
    absl::MutexLock lock(&mutex_);
    if (state_ == v1::VERSION_STATE_ABORTED) return DataStatus();
    if (state_ != v1::VERSION_STATE_OPEN) {
      return absl::FailedPreconditionError(absl::StrCat("version ", Label(), " is committed already"));
    }
    if (incomplete_tensors_ != 0) {
      return absl::InternalError(
          absl::StrCat("version ", Label(), " has ", incomplete_tensors_, " tensors that are not converted"));
    }
    ManifestDigester digester;
    for (size_t i = 0; i < size(); ++i) digester.Add(spec(i), tensors_[i].digest);
    manifest_digest_ = digester.Finish();
    state_ = v1::VERSION_STATE_COMMITTED;
    closed_at_ns_ = absl::GetCurrentTimeNanos();
  }
  WakeReady();
  return absl::OkStatus();
}

bool Version::SetAborted(std::string reason) {
  std::vector<std::shared_ptr<Buffer>> dropped;
  {
    absl::MutexLock lock(&mutex_);
    if (state_ != v1::VERSION_STATE_OPEN) return false;
    state_ = v1::VERSION_STATE_ABORTED;
    abort_reason_ = std::move(reason);
    closed_at_ns_ = absl::GetCurrentTimeNanos();
    DropDataLocked(dropped);
  }
  WakeReady();
  return true;
}

void Version::SetRetired() {
  std::vector<std::shared_ptr<Buffer>> dropped;
  absl::MutexLock lock(&mutex_);
  state_ = v1::VERSION_STATE_RETIRED;
  if (readers_ == 0) DropDataLocked(dropped);
}

void Version::DropData() {
  std::vector<std::shared_ptr<Buffer>> dropped;
  absl::MutexLock lock(&mutex_);
  DropDataLocked(dropped);
}

void Version::DropDataLocked(std::vector<std::shared_ptr<Buffer>>& dropped) {
  if (!holds_data_) return;
  holds_data_ = false;
  for (Tensor& t : tensors_) dropped.push_back(std::move(t.data));
}

bool Version::HoldsData() const {
  absl::MutexLock lock(&mutex_);
  return holds_data_;
}

Version::Reader::Reader(std::shared_ptr<Version> version) : version_(std::move(version)) {
  absl::MutexLock lock(&version_->mutex_);
  ++version_->readers_;
}

Version::Reader::~Reader() {
  if (version_ == nullptr) return;  // moved from
  std::vector<std::shared_ptr<Buffer>> dropped;
  absl::MutexLock lock(&version_->mutex_);
  if (--version_->readers_ == 0 && version_->state_ == v1::VERSION_STATE_RETIRED) version_->DropDataLocked(dropped);
}

}  // namespace refit
