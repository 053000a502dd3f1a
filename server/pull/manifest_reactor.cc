#include "server/pull/manifest_reactor.h"

#include <memory>
#include <utility>
#include <vector>

#include "common/net/status.h"
#include "server/access/limit_checks.h"
#include "server/pull/selection.h"

namespace refit {
namespace {

// Sends a manifest in parts. gRPC calls one reaction at a time here, so there is no lock.
class ManifestReactor final : public grpc::ServerWriteReactor<v1::ManifestPart> {
 public:
  explicit ManifestReactor(absl::StatusOr<PeerStreams::Stream> stream) : stream_(std::move(stream)) {}

  void Start(std::unique_ptr<ManifestReactor> self, PullContext& context, const v1::GetManifestRequest& request) {
    self_ = std::move(self);
    const absl::Status status = stream_.ok() ? Select(context, request) : stream_.status();
    context.admission.counters.limits.Add(status);
    if (!status.ok()) return Finish(ToGrpc(status));
    WritePart();
  }

  void OnWriteDone(bool ok) override {
    if (!ok) return Finish(grpc::Status::CANCELLED);
    if (part_.last()) return Finish(grpc::Status::OK);
    WritePart();
  }

  void OnDone() override { const std::unique_ptr<ManifestReactor> ends_here = std::move(self_); }

 private:
  absl::Status Select(PullContext& context, const v1::GetManifestRequest& request) {
    if (absl::Status status = CheckSelection(request, context.admission.limits); !status.ok()) return status;
    absl::StatusOr<std::shared_ptr<Version>> version = context.store.Find(request.model(), request.version());
    if (!version.ok()) return version.status();
    version_ = *std::move(version);
    if (absl::Status status = version_->CheckPullable(); !status.ok()) return status;
    parts_ = &context.parts;
    absl::StatusOr<SelectionRequest> wanted = SelectionOf(request);
    if (!wanted.ok()) return wanted.status();
    absl::StatusOr<std::vector<Selected>> selection = SelectTensors(*version_, *wanted);
    if (!selection.ok()) return selection.status();
    selection_ = *std::move(selection);
    return absl::OkStatus();
  }

  void WritePart() {
    part_.Clear();
    FillManifestPart(*version_, selection_, *parts_, next_, part_);
    next_ += part_.entries_size();
    StartWrite(&part_);
  }

  const absl::StatusOr<PeerStreams::Stream> stream_;
  std::unique_ptr<ManifestReactor> self_;
  std::shared_ptr<Version> version_;
  std::vector<Selected> selection_;
  PartTable* parts_ = nullptr;
  v1::ManifestPart part_;
  size_t next_ = 0;
};

}  // namespace

grpc::ServerWriteReactor<v1::ManifestPart>* StartManifest(PullContext& pulls, const v1::GetManifestRequest& request,
                                                          const grpc::CallbackServerContext& call) {
  auto reactor = std::make_unique<ManifestReactor>(pulls.admission.peer_streams.Enter(call.peer()));
  ManifestReactor& started = *reactor;
  started.Start(std::move(reactor), pulls, request);
  return &started;
}

}  // namespace refit
