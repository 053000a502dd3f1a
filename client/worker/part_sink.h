// The sink of one of several connections that pull a version together.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "client/worker/joint_tensors.h"
#include "refit/box.h"
#include "refit/pull.h"

namespace refit {

// What this connection asks for: a box of a tensor, which is a run of the bytes that the pull wants of it.
struct AskedPart {
  size_t tensor = 0;
  Box box;
  uint64_t begin = 0;
  uint64_t end = 0;
};

// Puts parts into the tensors' memory. Everything that it is given must outlive it.
class PartSink final : public TensorSink {
 public:
  PartSink(JointTensors& joint, const std::vector<AskedPart>& asked) : joint_(joint), asked_(asked) {}

  // Whether the service has accepted the pull.
  bool begun() const { return begun_; }

  absl::Status Begin(const VersionSummary&, const std::vector<TensorPart>& parts) override {
    begun_ = true;
    if (parts.size() == asked_.size()) return absl::OkStatus();
    return absl::InternalError(
        absl::StrCat("the service sends ", parts.size(), " tensors over a connection that asked for ", asked_.size()));
  }

  absl::StatusOr<absl::Span<std::byte>> Place(size_t index) override {
    const AskedPart& asked = asked_[index];
    const absl::StatusOr<absl::Span<std::byte>> memory = joint_.MemoryOf(asked.tensor);
    if (!memory.ok()) return memory.status();
    return memory->subspan(asked.begin, asked.end - asked.begin);
  }

  absl::Status Done(size_t index) override {
    const AskedPart& asked = asked_[index];
    return joint_.PartDone(asked.tensor, asked.end - asked.begin);
  }
  void Progress(uint64_t bytes) override { joint_.Progress(bytes); }

 private:
  JointTensors& joint_;
  const std::vector<AskedPart>& asked_;
  bool begun_ = false;
};

}  // namespace refit
