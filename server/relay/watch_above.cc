#include "server/relay/watch_above.h"

#include <chrono>
#include <optional>

#include "absl/strings/str_cat.h"
#include "client/worker/backoff.h"
#include "refit/tensor_spec.h"
#include "refit/v1/pull.pb.h"
#include "server/relay/listen_above.h"

namespace refit {
namespace {

constexpr char kMethod[] = "/refit.v1.PullService/WatchVersions";

}  // namespace

void WatchAbove::Run() {
  Backoff backoff(kFirstPauseAbove, kLongestPauseAbove);
  StopFlag& stop = above_.connection->calls->cancelled();
  absl::Status told;  // a service that is away would give the same reason every few seconds
  do {
    heard_ = false;
    const absl::Status status = Watch();
    if (heard_) {
      backoff.Reset();
      told = absl::OkStatus();
    }
    if (!stop.stopped() && status != told) {
      told = status;
      parts_.admission.log.Info("the watch of the service above ended",
                                {{"upstream", above_.connection->address}, {"reason", std::string(status.message())}});
    }
  } while (backoff.Wait(stop));
  mirrors_.clear();
}

// Returns why it ended.
absl::Status WatchAbove::Watch() {
  for (const auto& [model, mirror] : mirrors_) mirror->HearAnew();
  v1::WatchVersionsRequest request;
  request.set_all_models(true);
  request.set_worker(above_.name);
  request.set_life(above_.life);
  return ListenAbove<v1::VersionEvent>(above_, kMethod, request, [this](const v1::VersionEvent& event) {
    heard_ = true;
    Hear(event.version());
    return absl::OkStatus();
  });
}

void WatchAbove::Hear(const v1::VersionSummary& version) {
  std::unique_ptr<ModelMirror>& mirror = mirrors_[version.model()];
  if (mirror == nullptr) mirror = std::make_unique<ModelMirror>(version.model(), above_, parts_);
  mirror->Hear(version);
}

}  // namespace refit
