// Writes bytes to a device, a pipe or an open descriptor. For this project's own use.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/safetensors/held_bytes.h"
#include "common/safetensors/output_file.h"
#include "common/safetensors/output_target.h"
#include "common/safetensors/posix_file.h"

namespace refit {

// A device, a pipe, or a descriptor of this process. Bytes are written in order, as they arrive.
class OutputStream final : public OutputFile {
 public:
  // FAILED_PRECONDITION for a pipe without a reader.
  static absl::StatusOr<std::unique_ptr<OutputFile>> Open(const OutputTarget& target);

  absl::Status WriteAt(uint64_t position, absl::Span<const std::byte> bytes) override;
  absl::Status Commit() override { return absl::OkStatus(); }

 private:
  OutputStream(std::string name, FileDescriptor file) : name_(std::move(name)), file_(std::move(file)) {}
  absl::Status Write(absl::Span<const std::byte> bytes);

  const std::string name_;
  const FileDescriptor file_;
  std::mutex mutex_;
  uint64_t written_ = 0;  // guarded by mutex_, as is what follows
  HeldBytes held_;
};

}  // namespace refit
