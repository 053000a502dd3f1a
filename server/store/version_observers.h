// Callbacks for changes of versions' states.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "server/store/version.h"

namespace refit {

// Thread-safe.
class VersionObservers {
 public:
  using Observer = std::function<void(const std::shared_ptr<Version>&)>;

  // `model`: nullopt for all models. Returns the observer's number, which is never 0.
  uint64_t Add(std::optional<std::string> model, Observer on_change) ABSL_LOCKS_EXCLUDED(mutex_);
  // When it returns, the observer may still be running but is not called again.
  void Remove(uint64_t number) ABSL_LOCKS_EXCLUDED(mutex_);

  // Calls the observers of each version's model, with no lock held.
  void Tell(const std::vector<std::shared_ptr<Version>>& changed) const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  mutable absl::Mutex mutex_;
  uint64_t next_ ABSL_GUARDED_BY(mutex_) = 1;
  // Each with its model; nullopt: all models.
  std::map<uint64_t, std::pair<std::optional<std::string>, Observer>> observers_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace refit
