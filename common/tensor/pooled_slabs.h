// Slabs for the tensors of a version that is received, from a pool that keeps memory from one version to the next.
#pragma once

#include <cstddef>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/tensor/buffer_pool.h"
#include "common/tensor/slab.h"
#include "refit/box.h"

namespace refit {

// Not thread-safe; the pool must outlive it. Its buffers may outlive both.
class PooledSlabs {
 public:
  explicit PooledSlabs(BufferPool& pool) : pool_(pool) {}

  // Begins a version of these tensors: frees idle memory of the pool that they cannot use.
  void Begin(absl::Span<const TensorPart> tensors) {
    slabs_ = Slabs(SlabPlan::Of(tensors));
    pool_.TrimTo(slabs_.plan().capacity());
  }

  // The memory of a tensor. Errors as BufferPool::Get.
  absl::StatusOr<std::shared_ptr<Buffer>> Get(size_t tensor) {
    return slabs_.Get(tensor, [this](size_t size) { return pool_.Get(size); });
  }

 private:
  BufferPool& pool_;
  Slabs slabs_;
};

}  // namespace refit
