// The interface for writing bytes to a file, a device or a pipe. For this project's own use.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace refit {

// A file gets its name only in Commit. Before that it has none or, if the file system has no nameless files, a
// temporary one, which the destructor removes. Bytes for a device or a pipe are written as they arrive; it is never
// removed or replaced. Thread-safe.
class OutputFile {
 public:
  // `permissions` as for open(2). Errors as ResolveOutput. Also removes files that killed writers left in the folder;
  // see temporary_file.h. FAILED_PRECONDITION for a pipe without a reader, and for a file system without rename.
  static absl::StatusOr<std::unique_ptr<OutputFile>> Create(const std::string& path, unsigned permissions);
  virtual ~OutputFile() = default;

  // A stream holds bytes until all bytes before them have arrived: 64 MiB in memory, the rest in a nameless file in
  // $TMPDIR. RESOURCE_EXHAUSTED if the disk is full, or memory is exhausted.
  virtual absl::Status WriteAt(uint64_t position, absl::Span<const std::byte> bytes) = 0;
  // Call it once. After an error there is no new file.
  virtual absl::Status Commit() = 0;
  // After Commit: a warning if the file was written, but the file system could not flush it. Otherwise empty.
  const std::string& warning() const { return warning_; }

 protected:
  std::string warning_;
};

}  // namespace refit
