// Asks which tensors a pull would bring, before it begins.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "client/worker/subscriber_connection.h"
#include "refit/box.h"
#include "refit/pull.h"
#include "refit/version_summary.h"

namespace refit {

struct AskedManifest {
  VersionSummary version;
  std::vector<TensorPart> parts;
  bool selects_all = false;  // all tensors, and all of them whole
  // Each tensor may be gone as soon as it was sent, so all of it must be pulled at once.
  bool is_streamed = false;
};

// Errors as Subscriber::Pull. `context` begins each.
absl::StatusOr<AskedManifest> AskManifest(const SubscriberConnection& connection, const PullOptions& options,
                                          const std::string& context);

}  // namespace refit
