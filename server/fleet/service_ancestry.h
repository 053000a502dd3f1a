// The way from the root to this service.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "refit/v1/relay.pb.h"
#include "server/process/observers.h"

namespace refit {

// Thread-safe.
class ServiceAncestry {
 public:
  // Of a root, or of a relay that is not attending yet. `name` is for people.
  ServiceAncestry(std::string name, bool is_root);

  // This service among them, as the last one.
  v1::Ancestry Get() const ABSL_LOCKS_EXCLUDED(mutex_);
  uint64_t life() const { return own_.life(); }
  const std::string& name() const { return own_.name(); }
  // Number of services above; 0 of a root, and of a relay whose way to the root is cut.
  uint32_t depth() const;

  // For a relay: what the service above tells; nullopt once it is lost.
  void SetAbove(std::optional<v1::Ancestry> above) ABSL_LOCKS_EXCLUDED(mutex_);

  // Calls `on_change` after each change, with no lock held.
  uint64_t Observe(std::function<void()> on_change) { return observers_.Add(std::move(on_change)); }
  // When it returns, `on_change` may still be running but is not called again.
  void StopObserving(uint64_t id) { observers_.Remove(id); }

 private:
  v1::Ancestor own_;  // never changes
  const bool is_root_;

  mutable absl::Mutex mutex_;
  std::optional<v1::Ancestry> above_ ABSL_GUARDED_BY(mutex_);
  Observers observers_;
};

}  // namespace refit
