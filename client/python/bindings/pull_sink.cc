#include "client/python/bindings/pull_sink.h"

#include <utility>

#include "client/python/bindings/interruptible.h"

namespace refit::python {
namespace {

// How often progress is reported.
constexpr std::chrono::milliseconds kProgressInterval{100};

}  // namespace

absl::Status ProgressReport::Tell(uint64_t bytes, uint64_t total, bool last) {
  const auto now = std::chrono::steady_clock::now();
  if (callback_.is_none() || (!last && now - told_ < kProgressInterval)) return absl::OkStatus();
  told_ = now;
  const bool goes_on = CallPython([&] { callback_(bytes, total); });
  return goes_on ? absl::OkStatus() : absl::CancelledError("its progress callback raised");
}

absl::Status PullSink::Begin(const VersionSummary&, const std::vector<TensorPart>& tensors) {
  if (!targets_.empty()) {
    if (absl::Status status = targets_.Check(tensors); !status.ok()) return status;
  }
  memory_.Begin(targets_.empty() ? tensors : absl::Span<const TensorPart>());
  tensors_.reserve(tensors.size());
  for (const TensorPart& part : tensors) {
    tensors_.push_back(targets_.empty() ? Tensor{part, {}, nullptr} : targets_.At(part));
    total_ += part.ByteSize();
  }
  return progress_.Tell(0, total_);
}

absl::StatusOr<absl::Span<std::byte>> PullSink::Place(size_t index) {
  Tensor& tensor = tensors_[index];
  if (!targets_.empty()) {
    wrote_targets_ = true;
    return tensor.bytes;
  }
  auto buffer = memory_.Get(index);
  if (!buffer.ok()) return buffer.status();
  tensor.bytes = (*buffer)->span();
  tensor.owner = *std::move(buffer);
  return tensor.bytes;
}

bool PullSink::Adopt(size_t index, std::shared_ptr<Buffer> mapped) {
  if (!may_map_) return false;
  tensors_[index].bytes = mapped->span();
  tensors_[index].owner = std::move(mapped);
  return true;
}

absl::Status PullSink::Done(size_t index) {
  done_ += tensors_[index].part.ByteSize();
  return progress_.Tell(done_, total_, index + 1 == tensors_.size());
}

}  // namespace refit::python
