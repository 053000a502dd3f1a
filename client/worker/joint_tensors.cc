#include "client/worker/joint_tensors.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/wire/digest.h"

namespace refit {
JointTensors::JointTensors(TensorSink& sink, const std::vector<TensorPart>& tensors, uint64_t chunk_bytes,
                           uint64_t most_ahead_bytes)
    : sink_(sink),
      parts_(tensors),
      chunk_bytes_(chunk_bytes),
      most_ahead_bytes_(most_ahead_bytes),
      digests_(tensors.size()),
      tensors_(tensors.size()) {
  uint64_t begin = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    tensors_[i].begin = begin;
    tensors_[i].missing_bytes = tensors[i].ByteSize();
    begin += tensors_[i].missing_bytes;
    if (tensors_[i].missing_bytes > 0) continue;
    tensors_[i].is_whole = true;
    digests_[i] = TensorDigest({});
  }
}

void JointTensors::Expect(size_t connections) {
  const std::lock_guard lock(mutex_);
  connections_ = connections;
}

absl::Status JointTensors::Serve(const std::function<void()>& cancel) {
  std::unique_lock lock(mutex_);
  bool cancelled = false;
  while (true) {
    changed_.wait(lock, [&] { return connections_ == 0 || HasWork() || (!error_.ok() && !cancelled); });
    if (!error_.ok() && !std::exchange(cancelled, true)) {
      lock.unlock();
      cancel();
      lock.lock();
    } else if (HasWork()) {
      if (const absl::Status status = Step(lock); error_.ok()) error_ = status;
      changed_.notify_all();
    } else if (connections_ == 0) {
      return error_;
    }
  }
}

bool JointTensors::HasWork() const { return error_.ok() && (MayHandOver() || MayPlace() || progress_ > 0); }

// Empty tensors are wanted by no connection.
bool JointTensors::MayPlace() const {
  if (placed_ == tensors_.size() || (placed_ >= wanted_ && !tensors_[placed_].is_whole)) return false;
  return placed_ == handed_over_ || tensors_[placed_].begin - tensors_[handed_over_].begin <= most_ahead_bytes_;
}

bool JointTensors::MayHandOver() const { return handed_over_ < placed_ && tensors_[handed_over_].is_whole; }

// What the sink is due next. It is called with no lock held.
absl::Status JointTensors::Step(std::unique_lock<std::mutex>& lock) {
  const uint64_t progress = std::exchange(progress_, 0);
  const bool hands_over = MayHandOver();
  const size_t tensor = hands_over ? handed_over_ : placed_;
  const bool places = !hands_over && MayPlace();
  lock.unlock();
  if (progress > 0) sink_.Progress(progress);
  absl::Status status;
  absl::Span<std::byte> memory;
  if (hands_over) {
    status = sink_.Done(tensor);
  } else if (places) {
    const absl::StatusOr<absl::Span<std::byte>> placed = sink_.Place(tensor);
    status = placed.status();
    if (placed.ok()) memory = *placed;
    if (placed.ok() && memory.size() != parts_[tensor].ByteSize()) {
      status =
          absl::InvalidArgumentError(absl::StrCat("the sink has ", memory.size(), " bytes for tensor ",
                                                  parts_[tensor].ToString(), "; expected ", parts_[tensor].ByteSize()));
    }
  }
  lock.lock();
  if (!status.ok()) return status;
  if (hands_over) ++handed_over_;
  if (places) {
    tensors_[tensor].memory = memory;
    ++placed_;
  }
  return status;
}

absl::StatusOr<absl::Span<std::byte>> JointTensors::MemoryOf(size_t tensor) {
  std::unique_lock lock(mutex_);
  if (wanted_ <= tensor) {
    wanted_ = tensor + 1;
    changed_.notify_all();
  }
  changed_.wait(lock, [&] { return placed_ > tensor || !error_.ok(); });
  if (!error_.ok()) return error_;
  return tensors_[tensor].memory;
}

// Whoever brings the last part digests the tensor.
absl::Status JointTensors::PartDone(size_t tensor, uint64_t bytes) {
  {
    const std::lock_guard lock(mutex_);
    if (!error_.ok()) return error_;
    tensors_[tensor].missing_bytes -= bytes;
    if (tensors_[tensor].missing_bytes > 0) return absl::OkStatus();
  }
  digests_[tensor] = DigestTensor(tensors_[tensor].memory, chunk_bytes_);
  const std::lock_guard lock(mutex_);
  tensors_[tensor].is_whole = true;
  changed_.notify_all();
  return error_;
}

void JointTensors::Progress(uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  progress_ += bytes;
  changed_.notify_all();
}

void JointTensors::Ended(const absl::Status& status) {
  const std::lock_guard lock(mutex_);
  --connections_;
  if (error_.ok()) error_ = status;
  changed_.notify_all();
}

}  // namespace refit
