// The sink of a pull from Python, and its progress reports.
#pragma once

#include <pybind11/pybind11.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "client/python/bindings/targets.h"
#include "client/python/bindings/tensor.h"
#include "common/tensor/pooled_slabs.h"
#include "refit/pull.h"

namespace refit::python {

// Reports the progress of a pull to Python now and then.
class ProgressReport {
 public:
  // `callback` may be None. It must outlive this object.
  explicit ProgressReport(pybind11::handle callback) : callback_(callback) {}

  // CANCELLED if the callback raised.
  absl::Status Tell(uint64_t bytes, uint64_t total, bool last = false);

 private:
  const pybind11::handle callback_;
  std::chrono::steady_clock::time_point told_;
};

// Receives tensors into the caller's memory if there is some; otherwise into the pool's or the service's. Everything
// that it is given must outlive it.
class PullSink final : public TensorSink {
 public:
  PullSink(BufferPool& pool, const Targets& targets, bool may_map, ProgressReport& progress)
      : memory_(pool), targets_(targets), may_map_(may_map && targets.empty()), progress_(progress) {}

  absl::Status Begin(const VersionSummary& version, const std::vector<TensorPart>& tensors) override;
  absl::StatusOr<absl::Span<std::byte>> Place(size_t index) override;
  bool Adopt(size_t index, std::shared_ptr<Buffer> mapped) override;
  absl::Status Done(size_t index) override;
  bool TakesSeveral() override { return true; }

  std::vector<Tensor>& tensors() { return tensors_; }
  bool wrote_targets() const { return wrote_targets_; }

 private:
  PooledSlabs memory_;
  const Targets& targets_;
  const bool may_map_;
  ProgressReport& progress_;
  std::vector<Tensor> tensors_;
  uint64_t total_ = 0;
  uint64_t done_ = 0;
  bool wrote_targets_ = false;
};

}  // namespace refit::python
