// Reads the manifest of a version that is to be pulled.
#pragma once

#include <chrono>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "client/worker/received_manifest.h"
#include "client/worker/subscriber_connection.h"
#include "refit/pull.h"
#include "refit/v1/pull.pb.h"

namespace refit {

// Reads what the options select, but for their names, into `received`. `hear` is called with each part before it is
// added; what it fails with is returned. Errors begin with `context`: INTERNAL for a manifest that breaks the protocol;
// otherwise as PullService.GetManifest.
absl::Status ReadManifest(const SubscriberConnection& connection, const PullOptions& options,
                          const std::string& context, ReceivedManifest& received,
                          absl::FunctionRef<absl::Status(const v1::ManifestPart&)> hear);

}  // namespace refit
