// The memory in use of a worker that receives in place: which version it holds, and which one it can become.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "client/worker/staged_deltas.h"
#include "refit/box.h"
#include "refit/pull.h"
#include "refit/version_summary.h"
#include "refit/worker.h"

namespace refit {

// A staged version.
struct Staging {
  StagedVersion version;
  // Set if its bytes are not yet where `version` says: this makes them of the version in use.
  std::shared_ptr<StagedDeltas> deltas;
  uint64_t of_state = 0;  // MemoryInUse::state() then
};

// It writes nothing itself: it is told what has happened. The memory is the caller's; it is only read while `place`
// returns it. For one thread at a time.
class MemoryInUse {
 public:
  // Before `staging` is handed over to be installed.
  void Remember(const Staging& staging);
  // The remembered version is in use now. If deltas made it, they also lead back.
  void Use();
  // It holds no whole version.
  void Forget();

  // Changes with each version in use. Deltas are only good for the state that they were staged for.
  uint64_t state() const { return state_; }

  // The version in use, as the base of the next. Null if there is none, or if tensors share memory: changed twice,
  // their values would be wrong.
  std::shared_ptr<const PullBase> Base() const;
  // Whether the memory of a tensor in use is still this.
  bool IsAt(const TensorPart& part, absl::Span<const std::byte> memory) const;

  // The version before, if what is kept leads to exactly its bytes, in the memory that `place` still returns: its
  // digests tell, before anything is written.
  using Place = std::function<absl::StatusOr<absl::Span<std::byte>>(const TensorPart&)>;
  std::optional<Staging> WayBack(const VersionSummary& version, const Place& place) const;

 private:
  struct Held {
    StagedVersion version;
    bool is_disjoint = false;
    std::unordered_map<std::string, size_t> by_name;
  };

  static bool SamePlaces(const StagedVersion& a, const StagedVersion& b);

  uint64_t state_ = 0;
  std::optional<Staging> remembered_;
  std::optional<Held> held_;
  std::optional<Staging> back_;
};

// Whether no two of them share memory.
bool AreDisjoint(absl::Span<const StagedVersion::Tensor> tensors);

}  // namespace refit
