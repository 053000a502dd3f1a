// Memory of the service of which workers were told, so that they may map it.
#pragma once

#include <map>
#include <memory>
#include <vector>

#include "refit/buffer.h"
#include "refit/v1/types.pb.h"
#include "server/descriptors/descriptor_table.h"

namespace refit {

// One segment. As long as this lives, a worker can open it as the announcement says.
class LentSegment {
 public:
  LentSegment(DescriptorTable& descriptors, std::shared_ptr<const Buffer> buffer);
  const v1::SharedSegment& announcement() const { return announcement_; }

 private:
  std::shared_ptr<const Buffer> buffer_;  // keeps the descriptor open
  v1::SharedSegment announcement_;
  DescriptorTable::Loan loan_;
};

// Those of one pull. Not thread-safe.
class LentSegments {
 public:
  explicit LentSegments(DescriptorTable& descriptors) : descriptors_(descriptors) {}

  // How the worker opens the segment of this buffer, which it may use from now on.
  const v1::SharedSegment& Lend(const std::shared_ptr<const Buffer>& buffer);
  bool empty() const { return buffers_.empty(); }
  // The worker may still use the memory when it is freed.
  void NeverReuse() const;

 private:
  DescriptorTable& descriptors_;
  std::vector<std::shared_ptr<const Buffer>> buffers_;
  std::map<int, LentSegment> segments_;  // by the descriptor, which the buffers keep open
};

}  // namespace refit
