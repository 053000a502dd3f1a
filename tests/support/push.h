// Pushes a whole version with one call.
#pragma once

#include <cstddef>
#include <functional>
#include <vector>

#include "refit/publisher.h"

namespace refit {

// Pushes these tensors as they are, each with the bytes that `values` makes for it.
inline absl::StatusOr<VersionSummary> PushIdentity(const ChannelOptions& channel, uint64_t version,
                                                   const std::vector<TensorSpec>& specs,
                                                   const std::function<std::vector<std::byte>(size_t index)>& values) {
  auto publisher = Publisher::Connect(channel);
  if (!publisher.ok()) return publisher.status();
  PublishOptions options;
  options.version = version;
  options.adapter = "identity";
  auto push = (*publisher)->Open(options, specs);
  if (!push.ok()) return push.status();
  for (size_t i = 0; i < specs.size(); ++i) {
    if (absl::Status status = (*push)->Append(i, values(i)); !status.ok()) return status;
  }
  return (*push)->Commit();
}

}  // namespace refit
