// Holds bytes of a stream until their turn comes. For this project's own use.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/types/span.h"
#include "common/safetensors/posix_file.h"

namespace refit {

// Holds up to 64 MiB in memory. More bytes go to a nameless file in the folder for temporary files, each at its
// position in the stream, so that the file has holes where nothing is held. Not thread-safe.
class HeldBytes {
 public:
  bool HasAt(uint64_t position) const { return !held_.empty() && held_.begin()->first == position; }

  absl::Status Add(uint64_t position, absl::Span<const std::byte> bytes);

  // Removes the first run, and passes it to `take` in pieces.
  absl::Status TakeFirst(absl::FunctionRef<absl::Status(absl::Span<const std::byte>)> take);

 private:
  struct Run {
    uint64_t size;
    std::vector<std::byte> bytes;  // empty if the bytes are in the file
  };

  absl::Status Open();
  absl::Status WriteToFile(uint64_t position, absl::Span<const std::byte> bytes);

  std::map<uint64_t, Run> held_;  // by position
  uint64_t in_memory_ = 0;
  std::string folder_;
  FileDescriptor file_;
};

}  // namespace refit
