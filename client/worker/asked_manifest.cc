#include "client/worker/asked_manifest.h"

#include <chrono>
#include <memory>
#include <string>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "client/calls/unary_call.h"
#include "client/worker/manifest_stream.h"
#include "client/worker/pull_errors.h"
#include "client/worker/received_manifest.h"
#include "common/net/version_summary.h"
#include "refit/v1/inspect.grpc.pb.h"
#include "refit/v1/pull.pb.h"

namespace refit {
namespace {

constexpr std::chrono::seconds kInfoTimeout{10};

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
  const std::unique_ptr<v1::InspectService::Stub> stub =
      v1::InspectService::NewStub(connection.routes->Present()->channel);
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
  ReceivedManifest received(options, errors);
  AskedManifest manifest;
  const absl::Status read =
      ReadManifest(connection, options, context, received, [&manifest](const v1::ManifestPart& part) {
        if (part.has_summary()) manifest.version = FromProto(part.summary());
        return absl::OkStatus();
      });
  if (!read.ok()) return read;
  manifest.parts = received.parts();
  manifest.selects_all = received.selects_all();
  if (absl::Status status = KeepNamed(options, context, manifest); !status.ok()) return status;
  const absl::StatusOr<bool> is_streamed = IsStreamed(connection, manifest.version, context);
  if (!is_streamed.ok()) return is_streamed.status();
  manifest.is_streamed = *is_streamed;
  return manifest;
}

}  // namespace refit
