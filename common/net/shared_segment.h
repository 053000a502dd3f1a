// Maps memory of another process on the same host. The kernel protects it: only processes of the same user may open a
// memfd through /proc; others need its descriptor from the service. A segment that differs from its announcement is
// refused.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/net/descriptor_client.h"
#include "common/safetensors/posix_file.h"
#include "refit/buffer.h"
#include "refit/v1/types.pb.h"

namespace refit {

// Describes how others may open the memory of this buffer, which begins at Buffer::shared().begin. bytes 0 if it is
// private.
v1::SharedSegment Announce(const Buffer& buffer);

// Another process's memory, mapped read-only; only its owner writes to it. Immutable, thread-safe.
class MappedSegment {
 public:
  // UNAVAILABLE, with the reason, if it cannot be opened or differs from the announcement: another file, another
  // user's, smaller, or one that may shrink. RESOURCE_EXHAUSTED, naming limit and setting, if a limit prevents mapping
  // it.
  static absl::StatusOr<std::shared_ptr<MappedSegment>> Open(const v1::SharedSegment& announced);
  // As Open. Where /proc does not lead to the memory, it takes the descriptor from the service.
  static absl::StatusOr<std::shared_ptr<MappedSegment>> Open(const v1::SharedSegment& announced,
                                                             const DescriptorClient& descriptors);
  // Maps what a descriptor leads to that its owner has passed on, who may be another user. Errors as Open.
  static absl::StatusOr<std::shared_ptr<MappedSegment>> OfDescriptor(const FileDescriptor& file,
                                                                     const v1::SharedSegment& announced);
  ~MappedSegment();
  MappedSegment(const MappedSegment&) = delete;
  MappedSegment& operator=(const MappedSegment&) = delete;

  absl::Span<std::byte> span() const { return {data_, size_}; }
  // Whether `announced` describes this segment.
  bool Is(const v1::SharedSegment& announced) const;

 private:
  MappedSegment(std::byte* data, size_t size, v1::SharedSegment announced);

  std::byte* const data_;
  const size_t size_;
  const v1::SharedSegment announced_;
};

}  // namespace refit
