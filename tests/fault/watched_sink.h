// A sink that watches how far a pull is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "refit/pull.h"

namespace refit {

// Keeps the tensors, and calls `on_progress` with the bytes received so far.
class WatchedSink final : public TensorSink {
 public:
  explicit WatchedSink(std::function<void(uint64_t)> on_progress) : on_progress_(std::move(on_progress)) {}

  absl::Status Begin(const VersionSummary&, const std::vector<TensorPart>& tensors) override {
    ++begun;
    for (const TensorPart& part : tensors) bytes.emplace_back(part.ByteSize());
    return absl::OkStatus();
  }
  absl::StatusOr<absl::Span<std::byte>> Place(size_t index) override { return absl::MakeSpan(bytes[index]); }
  absl::Status Done(size_t) override { return absl::OkStatus(); }
  void Progress(uint64_t more) override {
    received += more;
    on_progress_(received);
  }

  int begun = 0;
  uint64_t received = 0;
  std::vector<std::vector<std::byte>> bytes;

 private:
  const std::function<void(uint64_t)> on_progress_;
};

}  // namespace refit
