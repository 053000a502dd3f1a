#include "server/relay/manifest_above.h"

#include <chrono>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/worker/pull_errors.h"
#include "client/worker/received_manifest.h"
#include "client/worker/subscriber_stream.h"
#include "common/net/byte_buffer.h"
#include "common/net/status.h"
#include "common/net/version_summary.h"
#include "refit/pull.h"
#include "refit/v1/pull.pb.h"
#include "server/server_checks.h"

namespace refit {
namespace {

constexpr char kMethod[] = "/refit.v1.PullService/GetManifest";
constexpr std::chrono::seconds kTimeout{60};

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
  v1::GetManifestRequest request;
  request.set_model(wanted.model());
  request.mutable_version()->set_number(wanted.version());
  request.mutable_version()->set_trainer_epoch(wanted.trainer_epoch());
  const std::string context =
      absl::StrCat("manifest of ", wanted.model(), "/", wanted.version(), " from ", above.connection->address);
  const PullOptions everything;
  const PullErrors errors(context);
  ReceivedManifest received(everything, errors);
  ManifestAbove manifest;
  SubscriberStream stream(*above.connection, kMethod, request, kTimeout);
  for (bool last = false; !last;) {
    const absl::StatusOr<std::optional<grpc::ByteBuffer>> message = stream->Read(kTimeout);
    if (!message.ok()) return Annotate(message.status(), context);
    if (!message->has_value()) {
      const absl::Status status = stream->Finish(kTimeout);
      return status.ok() ? errors.Breach("a manifest without its last part") : Annotate(status, context);
    }
    v1::ManifestPart part;
    if (absl::Status status = Parse(**message, part); !status.ok()) return Annotate(status, context);
    if (part.first() == 0) {
      manifest.summary = part.summary();
      if (absl::Status status = CheckLimits(manifest.summary, limits); !status.ok()) return status;
    }
    if (absl::Status status = received.Add(part, FromProto(manifest.summary)); !status.ok()) return status;
    for (const v1::ManifestEntry& entry : part.entries()) {
      const TensorPart& tensor = received.parts()[manifest.plan.outputs.size()];
      manifest.plan.outputs.push_back({{tensor.tensor, Transform::kPass, entry.experts()}, 0});
    }
    last = part.last();
  }
  return manifest;
}

}  // namespace refit
