#include "server/pull/lent_segments.h"

#include <utility>

#include "common/net/shared_segment.h"

namespace refit {

LentSegment::LentSegment(DescriptorTable& descriptors, std::shared_ptr<const Buffer> buffer)
    : buffer_(std::move(buffer)), announcement_(Announce(*buffer_)), loan_(descriptors.Lend(buffer_)) {
  announcement_.set_key(loan_.key());
}

const v1::SharedSegment& LentSegments::Lend(const std::shared_ptr<const Buffer>& buffer) {
  if (buffers_.empty() || buffers_.back() != buffer) buffers_.push_back(buffer);
  const auto known = segments_.find(buffer->shared_fd());
  if (known != segments_.end()) return known->second.announcement();
  return segments_.emplace(buffer->shared_fd(), LentSegment(descriptors_, buffer)).first->second.announcement();
}

void LentSegments::NeverReuse() const {
  for (const std::shared_ptr<const Buffer>& buffer : buffers_) buffer->NeverReuse();
}

}  // namespace refit
