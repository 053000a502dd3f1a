// Where a path leads that is to be written. For this project's own use.
#pragma once

#include <filesystem>
#include <string>

#include "absl/status/statusor.h"

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

}  // namespace refit
