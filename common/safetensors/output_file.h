// Files that are written. For this project's own use.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace refit {

// What a path leads to, links followed.
struct OutputTarget {
  enum class Kind {
    kFile,        // a regular file, or a name that is free
    kStream,      // a character device or a named pipe
    kDescriptor,  // one that this process has open, as by /dev/stdout
  };
  Kind kind = Kind::kFile;
  std::filesystem::path path;
  int descriptor = -1;  // of kDescriptor
};

// INVALID_ARGUMENT for what cannot be written: a folder, a block device, a socket, another process's descriptor, links
// in a circle.
absl::StatusOr<OutputTarget> ResolveOutput(const std::string& path);

// Bytes on their way to a target. A file appears under its name only by Commit; before that it has none, or, where the
// file system has no nameless files, a temporary one, which the destructor removes. What is no file is written as it
// comes: that is never removed or replaced. Thread-safe.
class OutputFile {
 public:
  // `permissions` as for open(2). Also removes files that writers left which were killed, see IsTemporaryName.
  // FAILED_PRECONDITION for a pipe that nobody reads, and for a file system without rename.
  static absl::StatusOr<std::unique_ptr<OutputFile>> Create(const std::string& path, unsigned permissions);
  virtual ~OutputFile() = default;

  // A stream keeps bytes until all before them came: 64 MiB in memory, what is more in a nameless file in $TMPDIR.
  // RESOURCE_EXHAUSTED on a full disk, or without memory.
  virtual absl::Status WriteAt(uint64_t position, absl::Span<const std::byte> bytes) = 0;
  // Once; an error means that there is no new file.
  virtual absl::Status Commit() = 0;
  // What is good to know of a file that is there: the file system could not flush it. Empty if nothing is.
  const std::string& warning() const { return warning_; }

 protected:
  std::string warning_;
};

// Whether a file of this name is a writer's temporary one.
bool IsTemporaryName(absl::string_view file_name);

}  // namespace refit
