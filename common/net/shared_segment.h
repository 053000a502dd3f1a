// Memory of another process on the same host. What keeps others out is the kernel: only processes of the same user may
// open a memfd through /proc, and a segment that is not exactly what was announced is refused.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "refit/buffer.h"
#include "refit/v1/types.pb.h"

namespace refit {

// How others may open the memory that this buffer lies in, at Buffer::shared().begin; bytes 0 if it is private.
v1::SharedSegment Announce(const Buffer& buffer);

// Another process's memory, mapped for reading; what is written to it stays with the writer. Immutable, thread-safe.
class MappedSegment {
 public:
  // UNAVAILABLE, saying why, if it cannot be opened, or is not what was announced: another file, another user's,
  // smaller, or one that may shrink. RESOURCE_EXHAUSTED, naming limit and setting, if a limit keeps it from being
  // mapped.
  static absl::StatusOr<std::shared_ptr<MappedSegment>> Open(const v1::SharedSegment& announced);
  ~MappedSegment();
  MappedSegment(const MappedSegment&) = delete;
  MappedSegment& operator=(const MappedSegment&) = delete;

  absl::Span<std::byte> span() const { return {data_, size_}; }
  // Whether `announced` is this one.
  bool Is(const v1::SharedSegment& announced) const;

 private:
  MappedSegment(std::byte* data, size_t size, v1::SharedSegment announced);

  std::byte* const data_;
  const size_t size_;
  const v1::SharedSegment announced_;
};

}  // namespace refit
