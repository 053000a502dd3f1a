// A sink that puts pulled tensors into host memory from a pool.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/net/status.h"
#include "common/tensor/buffer_pool.h"
#include "common/tensor/slab.h"
#include "refit/pull.h"

namespace refit {

// Puts the tensors into `tensors`. Both must outlive it.
class MemorySink final : public TensorSink {
 public:
  MemorySink(BufferPool& pool, std::vector<PulledTensor>& tensors) : pool_(pool), tensors_(tensors) {}

  absl::Status Begin(const VersionSummary&, const std::vector<TensorPart>& tensors) override {
    slabs_ = Slabs(SlabPlan::Of(tensors));
    // Frees memory of earlier versions that this version cannot use.
    pool_.TrimTo(slabs_.plan().capacity());
    tensors_.reserve(tensors.size());
    for (const TensorPart& part : tensors) tensors_.push_back({part, nullptr});
    return absl::OkStatus();
  }

  absl::StatusOr<absl::Span<std::byte>> Place(size_t index) override {
    PulledTensor& tensor = tensors_[index];
    absl::StatusOr<std::shared_ptr<Buffer>> data = slabs_.Get(index, [this](size_t size) { return pool_.Get(size); });
    if (!data.ok()) return Annotate(data.status(), absl::StrCat("memory for tensor ", tensor.part.ToString()));
    tensor.data = *std::move(data);
    return tensor.data->span();
  }

  bool Adopt(size_t index, std::shared_ptr<Buffer> mapped) override {
    tensors_[index].data = std::move(mapped);
    return true;
  }

  absl::Status Done(size_t) override { return absl::OkStatus(); }

 private:
  BufferPool& pool_;
  Slabs slabs_;
  std::vector<PulledTensor>& tensors_;
};

}  // namespace refit
