#include "common/tensor/slab.h"

#include <algorithm>
#include <utility>

#include "common/tensor/memory_block.h"

namespace refit {
namespace {

constexpr uint64_t kLine = 64;
constexpr uint64_t kPage = 4096;
constexpr uint64_t kOnPages = 64 << 10;  // from this size on a tensor begins on a page
constexpr uint64_t kLeastCapacity = uint64_t{64} << 20;

// More memory than this is never available.
constexpr uint64_t kMostBytes = uint64_t{1} << 60;

uint64_t RoundUp(uint64_t value, uint64_t unit) { return (value + unit - 1) / unit * unit; }

uint64_t AlignmentOf(uint64_t size) { return size < kOnPages ? kLine : kPage; }

// Includes the gap that may be between it and the previous tensor.
uint64_t MostBytesOf(uint64_t size) { return RoundUp(std::min(size, kMostBytes), kLine) + AlignmentOf(size) - kLine; }

class Piece final : public Buffer {
 public:
  Piece(std::shared_ptr<Buffer> slab, uint64_t begin, uint64_t size)
      : Buffer(slab->data() + begin, size, Within(slab->shared(), begin)), slab_(std::move(slab)) {}
  void NeverReuse() const override { slab_->NeverReuse(); }

 private:
  static SharedPlace Within(SharedPlace slab, uint64_t begin) {
    slab.begin += slab.fd < 0 ? 0 : begin;
    return slab;
  }

  const std::shared_ptr<Buffer> slab_;
};

}  // namespace

SlabPlan::SlabPlan(absl::Span<const uint64_t> sizes) : places_(sizes.size()) {
  uint64_t total = 0;
  for (const uint64_t size : sizes) total = std::min(total + MostBytesOf(size), kMostBytes);
  // Two consecutive slabs together hold more than one slab's capacity. So there are at most 2 * total / capacity of
  // these, two that are not full, and fewer than total / capacity for tensors larger than a slab.
  const uint64_t capacity = std::max(kLeastCapacity, RoundUp(total / (kMostSlabs / 2 - 2) + 1, kHugePage));
  Fill(sizes, /*small=*/true, capacity);
  Fill(sizes, /*small=*/false, capacity);
}

uint64_t SlabPlan::capacity() const {
  uint64_t capacity = 0;
  for (const uint64_t bytes : slab_bytes_) capacity += MemoryBlock::CapacityFor(bytes);
  return capacity;
}

SlabPlan SlabPlan::Of(absl::Span<const TensorPart> parts) {
  std::vector<uint64_t> sizes;
  sizes.reserve(parts.size());
  for (const TensorPart& part : parts) sizes.push_back(part.ByteSize());
  return SlabPlan(sizes);
}

void SlabPlan::Fill(absl::Span<const uint64_t> sizes, bool small, uint64_t capacity) {
  constexpr uint32_t kNone = ~uint32_t{0};
  uint32_t filling = kNone;
  for (size_t tensor = 0; tensor < sizes.size(); ++tensor) {
    const uint64_t size = sizes[tensor];
    if ((size < kSmallBytes) != small) continue;
    const uint64_t bytes = RoundUp(std::min(size, kMostBytes), kLine);
    uint64_t begin = filling == kNone ? 0 : RoundUp(slab_bytes_[filling], AlignmentOf(size));
    uint32_t slab = filling;
    if (slab == kNone || bytes > capacity || begin > capacity - bytes) {
      begin = 0;
      slab = static_cast<uint32_t>(slab_bytes_.size());
      slab_bytes_.push_back(0);
      if (bytes <= capacity) filling = slab;  // a larger one gets a slab of its own
    }
    places_[tensor] = {begin, size, slab};
    slab_bytes_[slab] = begin + bytes;
  }
}

absl::StatusOr<std::shared_ptr<Buffer>> Slabs::Get(size_t tensor, Source source) {
  const SlabPlan::Place& place = plan_.place(tensor);
  std::shared_ptr<Buffer>& slab = slabs_[place.slab];
  if (slab == nullptr) {
    absl::StatusOr<std::shared_ptr<Buffer>> had = source(plan_.slab_bytes(place.slab));
    if (!had.ok()) return had.status();
    slab = *std::move(had);
  }
  return std::make_shared<Piece>(slab, place.begin, place.size);
}

}  // namespace refit
