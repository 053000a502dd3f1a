// The base that a pull names, if this service can send deltas of it.
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

// The base's bytes are here, or deltas that were encoded while they were: these are then composed with those of the
// versions in between. Keeps data readable as long as the memory is not needed elsewhere. Not thread-safe.
class HeldBase {
 public:
  // The status of a failure says, in its message, why no deltas are sent. It is for the worker to read, and no reason
  // to refuse the pull.
  static absl::StatusOr<std::unique_ptr<HeldBase>> Find(PullContext& context, const v1::PullRequest& request,
                                                        std::shared_ptr<Version> version,
                                                        const std::vector<Selected>& selection);

  uint64_t number() const { return chain_.front()->number(); }

  // How a chunk of selection[index] is sent, which is ready in the version that is pulled.
  DeltaChunk Get(size_t index, uint64_t chunk, const Version::Chunk& ready);

 private:
  // From one version of the chain to the next, or from the last one to the version that is pulled.
  struct Step {
    PartChunks from;
    std::shared_ptr<DeltaPart> delta;
  };

  HeldBase(PullContext& context, const std::vector<std::shared_ptr<Version>>& chain, std::shared_ptr<Version> version,
           const std::vector<Selected>& selection);
  void Match(size_t link);
  void Enter(size_t index);
  PartChunks PartOf(size_t link, size_t index);
  DeltaChunk GetStep(size_t step, uint64_t chunk, const Version::Chunk& ready);
  absl::StatusOr<EncodedDelta> Compose(uint64_t chunk, const Version::Chunk& ready);

  PartTable& parts_;
  DeltaTable& deltas_;
  std::vector<Version::Reader> chain_;  // the base first
  const std::shared_ptr<Version> version_;
  const std::vector<Selected>& selection_;
  // For each version of the chain, and each of the selection: its tensor there.
  std::vector<std::vector<std::optional<size_t>>> tensors_;

  std::optional<size_t> current_;        // index into the selection, of the two below
  std::vector<Step> steps_;              // empty: the tensor is not in all versions of the chain
  std::shared_ptr<DeltaPart> composed_;  // from the base to the version that is pulled
};

}  // namespace refit
