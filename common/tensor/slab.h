// Where the tensors of a version lie: many to a slab of memory, so that a version takes few descriptors and mappings,
// whatever the number of its tensors.
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

// Which tensor lies where in which slab. Versions of the same sizes have the same plan, so that a pool finds slabs that
// fit. Small tensors have slabs of their own, since they travel by themselves: a worker that maps the others needs no
// memory beside them. Immutable.
class SlabPlan {
 public:
  // Whatever the sizes, there are no more slabs than this.
  static constexpr size_t kMostSlabs = 64;
  // Below it a tensor is small.
  static constexpr uint64_t kSmallBytes = 32 << 10;

  SlabPlan() = default;
  // One tensor a size, in bytes.
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
  // What a pool counts for all of them.
  uint64_t capacity() const;

 private:
  // Gives the tensors that are small, or those that are not, their places.
  void Fill(absl::Span<const uint64_t> sizes, bool small, uint64_t capacity);

  std::vector<Place> places_;
  std::vector<uint64_t> slab_bytes_;
};

// The memory of one version. A slab is had when the first of its tensors is asked for, and let go of once the last of
// them is, and this. Not thread-safe; its buffers may outlive it.
class Slabs {
 public:
  using Source = absl::FunctionRef<absl::StatusOr<std::shared_ptr<Buffer>>(size_t size)>;

  Slabs() = default;
  explicit Slabs(SlabPlan plan) : plan_(std::move(plan)), slabs_(plan_.slabs()) {}

  // The memory of a tensor, in a slab from `source`. Errors as the source's.
  absl::StatusOr<std::shared_ptr<Buffer>> Get(size_t tensor, Source source);

  const SlabPlan& plan() const { return plan_; }

 private:
  SlabPlan plan_;
  std::vector<std::shared_ptr<Buffer>> slabs_;
};

}  // namespace refit
