// Keeps the versions of one model as they are in the service above.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "client/calls/stop_flag.h"
#include "common/net/version_key.h"
#include "refit/v1/types.pb.h"
#include "server/relay/above.h"
#include "server/relay/news.h"
#include "server/server_parts.h"

namespace refit {

// A thread of its own brings the newest committed version, then the open one, again and again. A relay that was slow
// skips versions between, as a worker does. What it is given must outlive it; the connection's calls are cancelled
// before it is destroyed.
class ModelMirror {
 public:
  ModelMirror(std::string model, const Above& above, ServerParts& parts);
  // Waits for the thread.
  ~ModelMirror();

  // What the service above says of one of its versions. Releases of installs pass at once.
  void Hear(const v1::VersionSummary& version) ABSL_LOCKS_EXCLUDED(mutex_);
  // A new watch begins, which says everything again.
  void HearAnew() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  void Run();
  std::optional<v1::VersionSummary> Next() const ABSL_LOCKS_EXCLUDED(mutex_);
  bool Lacks(const v1::VersionSummary& version) const;
  uint64_t RootsLife() const;

  absl::Status Mirror(const v1::VersionSummary& version);
  absl::Status FollowRoot(uint64_t roots_life);
  void Release(const VersionKey& key) ABSL_LOCKS_EXCLUDED(mutex_);

  const std::string model_;
  const Above& above_;
  ServerParts& parts_;
  StopFlag& stop_;

  const std::shared_ptr<News> news_ = std::make_shared<News>();
  const uint64_t observer_;

  // The life of the root whose numbers the versions here have. Only of the thread.
  uint64_t roots_life_ = 0;

  mutable absl::Mutex mutex_;
  // Open and committed versions above.
  std::map<VersionKey, v1::VersionSummary> heard_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;  // last: it uses the members above
};

}  // namespace refit
