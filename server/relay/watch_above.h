// Watches all versions of the service above, and has each model mirrored.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "server/relay/above.h"
#include "server/relay/model_mirror.h"
#include "server/server_parts.h"

namespace refit {

// A thread of its own watches, again after each end. What it is given must outlive it; the connection's calls are
// cancelled before it is destroyed.
class WatchAbove {
 public:
  WatchAbove(const Above& above, ServerParts& parts) : above_(above), parts_(parts), thread_([this] { Run(); }) {}
  // Waits for the thread, and for those of the mirrors.
  ~WatchAbove() { thread_.join(); }

 private:
  void Run();
  absl::Status Watch();
  void Hear(const v1::VersionSummary& version);

  const Above& above_;
  ServerParts& parts_;
  std::map<std::string, std::unique_ptr<ModelMirror>> mirrors_;  // by model; only of the thread
  bool heard_ = false;                                           // whether the present watch has brought something
  std::thread thread_;                                           // last: it uses the members above
};

}  // namespace refit
