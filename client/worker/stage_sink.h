// The sink for a version that a worker stages.
#pragma once

#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "client/worker/installed_versions.h"
#include "client/worker/reporter.h"
#include "common/tensor/pooled_slabs.h"
#include "refit/pull.h"
#include "refit/version_summary.h"
#include "refit/worker.h"

namespace refit {

// Puts tensors into the worker's own memory, or where WorkerOptions::place decides. Refuses a version that must not be
// installed before its first byte. Everything that it is given must outlive it.
class StageSink final : public TensorSink {
 public:
  StageSink(const WorkerOptions& options, InstalledVersions& versions, Reporter& reporter, BufferPool& pool, Way way,
            StagedVersion& staged)
      : options_(options), versions_(versions), reporter_(reporter), memory_(pool), way_(way), staged_(staged) {}

  // As in its header; number 0 if none was received.
  const VersionSummary& version() const { return version_; }
  // Whether it is already in use.
  bool is_installed() const { return is_installed_; }
  // Whether it must not be installed.
  bool was_refused() const { return was_refused_; }

  absl::Status Begin(const VersionSummary& version, const std::vector<TensorPart>& tensors) override;
  absl::StatusOr<absl::Span<std::byte>> Place(size_t index) override;
  bool Adopt(size_t index, std::shared_ptr<Buffer> mapped) override;
  absl::Status Done(size_t) override { return absl::OkStatus(); }

 private:
  void BeTorn();
  absl::StatusOr<absl::Span<std::byte>> Memory(size_t index);

  const WorkerOptions& options_;
  InstalledVersions& versions_;
  Reporter& reporter_;
  PooledSlabs memory_;
  const Way way_;
  StagedVersion& staged_;
  VersionSummary version_;
  bool is_installed_ = false;
  bool was_refused_ = false;
  bool torn_ = false;
};

}  // namespace refit
