#include "client/worker/manifest_stream.h"

#include <optional>

#include "client/worker/pull_errors.h"
#include "client/worker/pull_request.h"
#include "client/worker/subscriber_stream.h"
#include "common/net/byte_buffer.h"
#include "common/net/status.h"
#include "common/net/version_summary.h"

namespace refit {
namespace {

constexpr char kMethod[] = "/refit.v1.PullService/GetManifest";

}  // namespace

absl::Status ReadManifest(const SubscriberConnection& connection, const PullOptions& options,
                          const std::string& context, ReceivedManifest& received,
                          absl::FunctionRef<absl::Status(const v1::ManifestPart&)> hear) {
  const PullErrors errors(context);
  v1::GetManifestRequest request;
  FillSelection(options, request);
  SubscriberStream stream(connection, kMethod, request, options.idle_timeout);
  VersionSummary version;
  bool complete = false;
  while (true) {
    const absl::StatusOr<std::optional<grpc::ByteBuffer>> message = stream->Read(options.idle_timeout);
    if (!message.ok()) return Annotate(message.status(), context);
    if (!message->has_value()) break;
    v1::ManifestPart part;
    if (absl::Status status = Parse(**message, part); !status.ok()) return errors.Breach(status.message());
    if (part.has_summary()) version = FromProto(part.summary());
    if (absl::Status status = hear(part); !status.ok()) return status;
    if (absl::Status status = received.Add(part, version); !status.ok()) return status;
    complete = part.last();
  }
  if (absl::Status status = stream->Finish(options.idle_timeout); !status.ok()) return Annotate(status, context);
  return complete && version.chunk_bytes != 0 ? absl::OkStatus() : errors.Breach("a manifest without an end");
}

}  // namespace refit
