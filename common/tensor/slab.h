// Places the tensors of a version in slabs of memory, so that a version needs few descriptors and mappings, however
// many tensors it has.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "refit/box.h"
#include "refit/buffer.h"

namespace refit {

// Which tensor is where in which slab. Versions with the same sizes have the same plan, so that a pool finds slabs that
// fit. Small tensors have separate slabs, because they are sent over the connection: a worker that maps the other slabs
// needs no memory for them. Immutable.
class SlabPlan {
 public:
  // There are never more slabs than this, whatever the sizes.
  static constexpr size_t kMostSlabs = 64;
  // Tensors below this size are small.
  static constexpr uint64_t kSmallBytes = 32 << 10;

  SlabPlan() = default;
  // One size in bytes for each tensor.
  explicit SlabPlan(absl::Span<const uint64_t> sizes);
  static SlabPlan Of(absl::Span<const TensorPart> parts);

  struct Place {
    uint64_t begin = 0;  // a multiple of 64; of 4096 for a tensor of 64 KiB or more
    uint64_t size = 0;
    uint32_t slab = 0;
  };
  const Place& place(size_t tensor) const { return places_[tensor]; }

  size_t slabs() const { return slab_bytes_.size(); }
  uint64_t slab_bytes(size_t slab) const { return slab_bytes_[slab]; }
  // The sum of the slabs' capacities, as a pool counts them.
  uint64_t capacity() const;

 private:
  // Places the tensors that are small, or those that are not.
  void Fill(absl::Span<const uint64_t> sizes, bool small, uint64_t capacity);

  std::vector<Place> places_;
  std::vector<uint64_t> slab_bytes_;
};

// The memory of one version. A slab is allocated when the first of its tensors is requested. It is freed when all of
// its tensors and this object are gone. Not thread-safe. Its buffers may outlive it.
class Slabs {
 public:
  using Source = absl::FunctionRef<absl::StatusOr<std::shared_ptr<Buffer>>(size_t size)>;

  Slabs() = default;
  explicit Slabs(SlabPlan plan) : plan_(std::move(plan)), slabs_(plan_.slabs()) {}

  // The memory of a tensor, in a slab from `source`. Errors as those of `source`.
  absl::StatusOr<std::shared_ptr<Buffer>> Get(size_t tensor, Source source);

  const SlabPlan& plan() const { return plan_; }

 private:
  SlabPlan plan_;
  std::vector<std::shared_ptr<Buffer>> slabs_;
};

}  // namespace refit
