// The service's shared memory segments in which chunks of a pull lie.
#pragma once

#include <algorithm>
#include <deque>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/net/descriptor_client.h"
#include "common/net/shared_segment.h"
#include "common/tensor/slab.h"
#include "refit/v1/types.pb.h"

namespace refit {

// Maps each segment once.
class MappedSegments {
 public:
  // For a new stream. A segment stays mapped while others use it. `descriptors`: those of the stream's service.
  void Begin(DescriptorClient descriptors) {
    descriptors_ = std::move(descriptors);
    current_.reset();
    all_.clear();
  }

  // Maps the announced segment, and makes it the current one. Errors as MappedSegment::Open.
  absl::Status Enter(const v1::SharedSegment& announced) {
    const auto is_meant = [&](const auto& segment) { return segment->Is(announced); };
    if (current_ != nullptr && is_meant(current_)) return absl::OkStatus();
    const auto known = std::find_if(all_.begin(), all_.end(), is_meant);
    if (known == all_.end()) return Map(announced);
    current_ = *known;
    return absl::OkStatus();
  }

  // Null before the first one.
  const std::shared_ptr<const MappedSegment>& current() const { return current_; }

 private:
  absl::Status Map(const v1::SharedSegment& announced) {
    absl::StatusOr<std::shared_ptr<MappedSegment>> mapped = MappedSegment::Open(announced, descriptors_);
    if (!mapped.ok()) return mapped.status();
    current_ = *std::move(mapped);
    all_.push_back(current_);
    // A service with one segment for each tensor does not use the oldest ones again.
    if (all_.size() > SlabPlan::kMostSlabs) all_.pop_front();
    return absl::OkStatus();
  }

  DescriptorClient descriptors_;
  std::shared_ptr<const MappedSegment> current_;
  std::deque<std::shared_ptr<const MappedSegment>> all_;  // oldest first
};

}  // namespace refit
