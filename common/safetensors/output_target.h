// Resolves an output path to a file, a stream or a descriptor. For this project's own use.
#pragma once

#include <filesystem>
#include <string>

#include "absl/status/statusor.h"

namespace refit {

// The target of a path, after following links.
struct OutputTarget {
  enum class Kind {
    kFile,        // a regular file, or an unused name
    kStream,      // a character device or a named pipe
    kDescriptor,  // an open descriptor of this process, as /dev/stdout
  };
  Kind kind = Kind::kFile;
  std::filesystem::path path;
  int descriptor = -1;  // for kDescriptor
};

// INVALID_ARGUMENT for a path that cannot be written: a folder, a block device, a socket, another process's descriptor,
// or a cycle of links.
absl::StatusOr<OutputTarget> ResolveOutput(const std::string& path);

}  // namespace refit
