// The chunks of one selected part of a version.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <utility>

#include "absl/status/statusor.h"
#include "server/pull/version_part.h"
#include "server/store/version.h"

namespace refit {

// A plain value.
struct PartChunks {
  std::shared_ptr<Version> version;
  size_t tensor = 0;
  std::shared_ptr<VersionPart> box;  // null: the whole tensor

  // As Version::GetChunk.
  absl::StatusOr<std::optional<Version::Chunk>> Get(uint64_t chunk) const {
    return box != nullptr ? box->GetChunk(chunk) : version->GetChunk(tensor, chunk);
  }
  // nullopt: not known yet. Stays known when the version's data are dropped.
  std::optional<uint64_t> digest(uint64_t chunk) const {
    return box != nullptr ? box->chunk_digest(chunk) : version->chunk_digest(tensor, chunk);
  }
  // Calls `wake` when Get may return more; see Version::WaitForChunk.
  uint64_t Wait(uint64_t chunk, std::function<void()> wake) const {
    return box != nullptr ? box->Wait(chunk, std::move(wake)) : version->WaitForChunk(tensor, chunk, std::move(wake));
  }
};

}  // namespace refit
