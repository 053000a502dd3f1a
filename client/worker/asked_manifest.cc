#include "client/worker/asked_manifest.h"

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "client/calls/unary_call.h"
#include "client/worker/pull_errors.h"
#include "client/worker/received_manifest.h"
#include "client/worker/subscriber_stream.h"
#include "common/net/byte_buffer.h"
#include "common/net/messages.h"
#include "common/net/status.h"
#include "common/net/version_summary.h"
#include "refit/v1/inspect.grpc.pb.h"
#include "refit/v1/pull.pb.h"

namespace refit {
namespace {

constexpr std::chrono::seconds kInfoTimeout{10};
constexpr char kMethod[] = "/refit.v1.PullService/GetManifest";

v1::GetManifestRequest RequestOf(const PullOptions& options) {
  v1::GetManifestRequest request;
  request.set_model(options.model);
  if (options.version.has_value()) {
    request.mutable_version()->set_number(*options.version);
  } else {
    request.mutable_version()->set_latest_committed(true);
  }
  if (options.trainer_epoch.has_value()) request.mutable_version()->set_trainer_epoch(*options.trainer_epoch);
  request.set_filter(options.filter);
  for (const LayoutRule& rule : options.rules) ToProto(rule, *request.add_rules());
  for (const auto& [name, box] : options.boxes) {
    v1::NamedBox& named = *request.add_boxes();
    named.set_name(name);
    ToProto(box, *named.mutable_box());
  }
  return request;
}

// The request knows no names.
absl::Status KeepNamed(const PullOptions& options, const std::string& context, AskedManifest& manifest) {
  if (options.names.empty()) return absl::OkStatus();
  absl::flat_hash_set<absl::string_view> names(options.names.begin(), options.names.end());
  std::vector<TensorPart> named;
  for (TensorPart& part : manifest.parts) {
    if (names.erase(part.tensor.name) > 0) named.push_back(std::move(part));
  }
  manifest.parts = std::move(named);
  if (names.empty()) return absl::OkStatus();
  return absl::NotFoundError(absl::StrCat(context, ": version ", manifest.version.version, " has no tensor named '",
                                          Printable(*names.begin()), "'"));
}

// A service that keeps no versions streams what is open.
absl::StatusOr<bool> IsStreamed(const SubscriberConnection& connection, const VersionSummary& version,
                                const std::string& context) {
  if (version.state != VersionState::kOpen) return false;
  const std::unique_ptr<v1::InspectService::Stub> stub = v1::InspectService::NewStub(connection.channel);
  const absl::StatusOr<v1::GetServerInfoResponse> info =
      CallUnary(*stub, &v1::InspectService::Stub::GetServerInfo, v1::GetServerInfoRequest(), kInfoTimeout, context,
                connection.calls);
  if (!info.ok()) return info.status();
  return info->retain_versions() == 0;
}

}  // namespace

absl::StatusOr<AskedManifest> AskManifest(const SubscriberConnection& connection, const PullOptions& options,
                                          const std::string& context) {
  const PullErrors errors(context);
  SubscriberStream stream(connection, kMethod, RequestOf(options), options.idle_timeout);
  ReceivedManifest received(options, errors);
  AskedManifest manifest;
  bool complete = false;
  while (true) {
    const absl::StatusOr<std::optional<grpc::ByteBuffer>> message = stream->Read(options.idle_timeout);
    if (!message.ok()) return Annotate(message.status(), context);
    if (!message->has_value()) break;
    v1::ManifestPart part;
    if (absl::Status status = Parse(**message, part); !status.ok()) return errors.Breach(status.message());
    if (part.has_summary()) manifest.version = FromProto(part.summary());
    if (absl::Status status = received.Add(part, manifest.version); !status.ok()) return status;
    complete = part.last();
  }
  if (absl::Status status = stream->Finish(options.idle_timeout); !status.ok()) return Annotate(status, context);
  if (!complete || manifest.version.chunk_bytes == 0) return errors.Breach("a manifest without an end");
  manifest.parts = received.parts();
  manifest.selects_all = received.selects_all();
  if (absl::Status status = KeepNamed(options, context, manifest); !status.ok()) return status;
  const absl::StatusOr<bool> is_streamed = IsStreamed(connection, manifest.version, context);
  if (!is_streamed.ok()) return is_streamed.status();
  manifest.is_streamed = *is_streamed;
  return manifest;
}

}  // namespace refit
