#include "server/relay/manifest_above.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/worker/manifest_stream.h"
#include "client/worker/pull_errors.h"
#include "client/worker/received_manifest.h"
#include "refit/pull.h"
#include "refit/v1/pull.pb.h"
#include "server/relay/listen_above.h"
#include "server/server_checks.h"

namespace refit {
namespace {

absl::Status CheckLimits(const v1::VersionSummary& summary, const Limits& limits) {
  const std::string label = absl::StrCat("version ", summary.model(), "/", summary.version(), " of the service above ");
  const uint64_t most = static_cast<uint64_t>(limits.max_message_bytes) - kChunkOverheadBytes;
  if (summary.chunk_bytes() > most) {
    return absl::ResourceExhaustedError(absl::StrCat(label, "has chunks of ", summary.chunk_bytes(), " bytes; at most ",
                                                     most, " fit a message here: raise --max-message-bytes"));
  }
  if (summary.tensors() > limits.max_tensors_per_version) {
    return absl::ResourceExhaustedError(absl::StrCat(label, "has ", summary.tensors(), " tensors; at most ",
                                                     limits.max_tensors_per_version, " may: raise --max-tensors"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ManifestAbove> GetManifestAbove(const v1::VersionSummary& wanted, const Above& above,
                                               const Limits& limits) {
  PullOptions options;
  options.model = wanted.model();
  options.version = wanted.version();
  options.trainer_epoch = wanted.trainer_epoch();
  options.idle_timeout = kLongestSilenceAbove;
  const std::string context =
      absl::StrCat("manifest of ", wanted.model(), "/", wanted.version(), " from ", above.connection->address);
  const PullErrors errors(context);
  ReceivedManifest received(options, errors);
  ManifestAbove manifest;
  std::vector<PlannedOutput> outputs;  // what the manifest says of them besides name and shape
  const auto hear = [&](const v1::ManifestPart& part) {
    for (const v1::ManifestEntry& entry : part.entries()) {
      PlannedOutput& output = outputs.emplace_back();
      output.experts = entry.experts();
      if (entry.expert_count() == 0) continue;
      output.expert = ExpertPlace{static_cast<int64_t>(entry.expert()), static_cast<int64_t>(entry.expert_count())};
    }
    if (!part.has_summary()) return absl::OkStatus();
    manifest.summary = part.summary();
    return CheckLimits(manifest.summary, limits);
  };
  if (absl::Status status = ReadManifest(*above.connection, options, context, received, hear); !status.ok()) {
    return status;
  }
  manifest.plan.outputs.reserve(outputs.size());
  for (size_t i = 0; i < outputs.size(); ++i) {
    outputs[i].hf = received.parts()[i].tensor;
    manifest.plan.outputs.push_back({std::move(outputs[i]), 0});
  }
  return manifest;
}

}  // namespace refit
