// Memory of the service that a worker has mapped and returns later.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>

#include "common/net/shared_segment.h"
#include "refit/buffer.h"

namespace refit {

// Lives as long as anything that was mapped in one pull. The destructor tells the service.
class Lease {
 public:
  virtual ~Lease() = default;
};

// A tensor in the service's memory. Writes to it are visible only in this process. Other tensors of the pull share its
// segment, which stays mapped until the last of them is gone.
class LeasedBuffer final : public Buffer {
 public:
  // [begin, begin + size) must lie within the segment.
  LeasedBuffer(std::shared_ptr<const MappedSegment> segment, uint64_t begin, uint64_t size,
               std::shared_ptr<const Lease> lease)
      : Buffer(segment->span().data() + begin, size), lease_(std::move(lease)), segment_(std::move(segment)) {}

 private:
  const std::shared_ptr<const Lease> lease_;
  const std::shared_ptr<const MappedSegment> segment_;  // unmapped before the lease ends
};

}  // namespace refit
