// The base that a pull names, if this service has it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "refit/v1/pull.pb.h"
#include "server/pull/delta_part.h"
#include "server/pull/part_chunks.h"
#include "server/pull/pull_context.h"
#include "server/pull/selection.h"
#include "server/store/version.h"

namespace refit {

// Keeps the base readable as long as the memory is not needed elsewhere. Not thread-safe.
class HeldBase {
 public:
  // The status of a failure says, in its message, why no deltas are sent. It is for the worker to read, and no reason
  // to refuse the pull.
  static absl::StatusOr<std::unique_ptr<HeldBase>> Find(PullContext& context, const v1::PullRequest& request,
                                                        std::shared_ptr<Version> version,
                                                        const std::vector<Selected>& selection);

  uint64_t number() const { return reader_->number(); }

  // How a chunk of selection[index] is sent, which is ready in the version that is pulled.
  DeltaChunk Get(size_t index, uint64_t chunk, const Version::Chunk& ready);

 private:
  HeldBase(PullContext& context, std::shared_ptr<Version> base, std::shared_ptr<Version> version,
           const std::vector<Selected>& selection)
      : parts_(context.parts),
        deltas_(context.deltas),
        reader_(std::move(base)),
        version_(std::move(version)),
        selection_(selection) {}
  void Match(const std::vector<Selected>& base_selection);
  void Enter(size_t index);

  PartTable& parts_;
  DeltaTable& deltas_;
  Version::Reader reader_;  // of the base
  const std::shared_ptr<Version> version_;
  const std::vector<Selected>& selection_;
  std::vector<std::optional<size_t>> tensors_;  // of the base, for each of the selection
  std::optional<size_t> current_;               // index into the selection, of the two below
  PartChunks base_part_;
  std::shared_ptr<DeltaPart> delta_part_;  // null until it is needed
};

}  // namespace refit
