// The sink for a version that a worker stages.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "client/worker/installed_versions.h"
#include "client/worker/memory_in_use.h"
#include "client/worker/reporter.h"
#include "common/tensor/pooled_slabs.h"
#include "refit/pull.h"
#include "refit/version_summary.h"
#include "refit/worker.h"

namespace refit {

// Puts tensors into the worker's own memory, or where WorkerOptions::place decides. If that is the memory in use, it
// keeps what has changed apart, as far as it can. Refuses a version that must not be installed before its first byte.
// Everything that it is given must outlive it.
class StageSink final : public TensorSink {
 public:
  StageSink(const WorkerOptions& options, InstalledVersions& versions, Reporter& reporter, BufferPool& pool,
            const MemoryInUse& in_use, Way way, Staging& staging)
      : options_(options),
        versions_(versions),
        reporter_(reporter),
        memory_(pool),
        in_use_(in_use),
        way_(way),
        staging_(staging) {}

  // As in its header; number 0 if none was received.
  const VersionSummary& version() const { return version_; }
  // Whether it is already in use.
  bool is_installed() const { return is_installed_; }
  // Whether it must not be installed.
  bool was_refused() const { return was_refused_; }
  // Why the version in use must be overwritten at once, and cannot be its base. Empty: it need not.
  const std::string& gave_up() const { return gave_up_; }

  absl::Status Begin(const VersionSummary& version, const std::vector<TensorPart>& tensors) override;
  bool TakesSeveral() override { return !options_.in_place; }
  absl::StatusOr<absl::Span<std::byte>> Place(size_t index) override;
  bool Adopt(size_t index, std::shared_ptr<Buffer> mapped) override;
  bool TakesChunks() override;
  absl::Status Take(const PulledChunk& chunk) override;
  absl::Status Done(size_t index) override;

 private:
  bool is_apart() const { return staging_.deltas != nullptr; }
  absl::Status GiveUp(std::string reason);
  void BeTorn();
  absl::StatusOr<absl::Span<std::byte>> Memory(size_t index);

  const WorkerOptions& options_;
  InstalledVersions& versions_;
  Reporter& reporter_;
  PooledSlabs memory_;
  const MemoryInUse& in_use_;
  const Way way_;
  Staging& staging_;
  VersionSummary version_;
  bool is_installed_ = false;
  bool was_refused_ = false;
  bool torn_ = false;
  uint64_t most_apart_ = 0;  // bytes of what has changed
  std::string gave_up_;
};

}  // namespace refit
