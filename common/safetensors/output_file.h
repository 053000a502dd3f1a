// Bytes on their way to a file, a device or a pipe. For this project's own use.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace refit {

// A file gets its name only by Commit. Before that it has none, or, where the file system has no nameless files, a
// temporary one, which the destructor removes. A device or a pipe is written as the bytes come, and is never removed or
// replaced. Thread-safe.
class OutputFile {
 public:
  // `permissions` as for open(2). Errors as of ResolveOutput. Also removes files that killed writers left in the
  // folder, see temporary_file.h. FAILED_PRECONDITION for a pipe that nobody reads, and for a file system without
  // rename.
  static absl::StatusOr<std::unique_ptr<OutputFile>> Create(const std::string& path, unsigned permissions);
  virtual ~OutputFile() = default;

  // A stream holds bytes until all before them came: 64 MiB in memory, what is more in a nameless file in $TMPDIR.
  // RESOURCE_EXHAUSTED on a full disk, or without memory.
  virtual absl::Status WriteAt(uint64_t position, absl::Span<const std::byte> bytes) = 0;
  // Once; an error means that there is no new file.
  virtual absl::Status Commit() = 0;
  // After Commit: says so if the file system could not flush the file, which is there. Empty otherwise.
  const std::string& warning() const { return warning_; }

 protected:
  std::string warning_;
};

}  // namespace refit
