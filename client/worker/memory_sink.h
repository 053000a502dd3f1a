// A sink that puts pulled tensors into host memory from a pool.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/net/status.h"
#include "common/tensor/pooled_slabs.h"
#include "refit/pull.h"

namespace refit {

// Puts the tensors into `tensors`. Both must outlive it.
class MemorySink final : public TensorSink {
 public:
  MemorySink(BufferPool& pool, std::vector<PulledTensor>& tensors) : memory_(pool), tensors_(tensors) {}

  absl::Status Begin(const VersionSummary&, const std::vector<TensorPart>& tensors) override {
    memory_.Begin(tensors);
    tensors_.reserve(tensors.size());
    for (const TensorPart& part : tensors) tensors_.push_back({part, nullptr});
    return absl::OkStatus();
  }

  absl::StatusOr<absl::Span<std::byte>> Place(size_t index) override {
    PulledTensor& tensor = tensors_[index];
    absl::StatusOr<std::shared_ptr<Buffer>> data = memory_.Get(index);
    if (!data.ok()) return Annotate(data.status(), absl::StrCat("memory for tensor ", tensor.part.ToString()));
    tensor.data = *std::move(data);
    return tensor.data->span();
  }

  bool TakesSeveral() override { return true; }

  bool Adopt(size_t index, std::shared_ptr<Buffer> mapped) override {
    tensors_[index].data = std::move(mapped);
    return true;
  }

  absl::Status Done(size_t) override { return absl::OkStatus(); }

 private:
  PooledSlabs memory_;
  std::vector<PulledTensor>& tensors_;
};

}  // namespace refit
