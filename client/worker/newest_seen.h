// The newest committed version of each model that any service has shown.
#pragma once

#include <map>
#include <mutex>
#include <optional>
#include <string>

#include "common/net/version_key.h"
#include "refit/version_summary.h"

namespace refit {

// Thread-safe.
class NewestSeen {
 public:
  void See(const VersionSummary& version) {
    if (version.state != VersionState::kCommitted) return;
    const std::lock_guard lock(mutex_);
    const auto [newest, is_first] = newest_.try_emplace(version.model, KeyOf(version));
    if (!is_first && newest->second < KeyOf(version)) newest->second = KeyOf(version);
  }

  std::optional<VersionKey> Of(const std::string& model) const {
    const std::lock_guard lock(mutex_);
    const auto newest = newest_.find(model);
    return newest == newest_.end() ? std::nullopt : std::optional(newest->second);
  }

  // No service has it any more.
  void Forget(const std::string& model) {
    const std::lock_guard lock(mutex_);
    newest_.erase(model);
  }

 private:
  mutable std::mutex mutex_;
  std::map<std::string, VersionKey> newest_;
};

}  // namespace refit
