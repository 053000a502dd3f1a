// A version that Python publishes into a service of its own process.
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

// A version under way, and the service that it needs. Ctrl-C ends what runs.
class LocalPush {
 public:
  // Opens it; `is_closed` says later on that no worker could get it any more.
  static std::unique_ptr<LocalPush> Open(const std::shared_ptr<RefitServer>& server,
                                         const std::shared_ptr<const std::atomic<bool>>& is_closed,
                                         const PublishOptions& options, std::vector<TensorSpec> native);

  pybind11::dict Summary() const;
  bool Unneeded(size_t index) const { return push_->unneeded(index); }
  // Whole tensors, in any order: converted before it returns, so that nobody reads them any more.
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
