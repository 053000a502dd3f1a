// A version that Python publishes to a service in its own process.
#pragma once

#include <pybind11/pybind11.h>

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "client/python/bindings/lent_shards.h"
#include "refit/publish_options.h"
#include "refit/server.h"

namespace refit::python {

// A version that is being pushed, and its service. Ctrl-C ends a running call.
class LocalPush {
 public:
  // Opens a version. `is_closed` tells later whether the service has ended, so that no worker could get the version.
  static std::unique_ptr<LocalPush> Open(const std::shared_ptr<RefitServer>& server,
                                         const std::shared_ptr<const std::atomic<bool>>& is_closed,
                                         const PublishOptions& options, std::vector<TensorSpec> native);

  pybind11::dict Summary() const;
  bool Unneeded(size_t index) const { return push_->unneeded(index); }
  // Appends whole tensors, in any order. They are converted before it returns, and not read afterwards.
  void Append(const LentShards& shards, bool until_read);
  pybind11::dict Commit();
  void Abort(const std::string& reason) { push_->Abort(reason).IgnoreError(); }

 private:
  LocalPush(std::shared_ptr<RefitServer> server, std::shared_ptr<const std::atomic<bool>> is_closed,
            std::unique_ptr<VersionPush> push);
  void CheckRunning() const;

  const std::shared_ptr<RefitServer> server_;
  const std::shared_ptr<const std::atomic<bool>> is_closed_;
  const std::unique_ptr<VersionPush> push_;
};

}  // namespace refit::python
