#include "server/relay/watch_above.h"

#include <chrono>
#include <optional>

#include "absl/strings/str_cat.h"
#include "client/worker/backoff.h"
#include "client/worker/no_timeout.h"
#include "client/worker/subscriber_stream.h"
#include "common/net/byte_buffer.h"
#include "refit/tensor_spec.h"
#include "refit/v1/pull.pb.h"

namespace refit {
namespace {

constexpr char kMethod[] = "/refit.v1.PullService/WatchVersions";
constexpr std::chrono::milliseconds kFirstPause{100};
constexpr std::chrono::seconds kLongestPause{5};
constexpr std::chrono::seconds kStartTimeout{60};

}  // namespace

void WatchAbove::Run() {
  Backoff backoff(kFirstPause, kLongestPause);
  StopFlag& stop = above_.connection->calls->cancelled();
  do {
    heard_ = false;
    const absl::Status status = Watch();
    if (heard_) backoff.Reset();
    if (!stop.stopped()) {
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
  SubscriberStream stream(*above_.connection, kMethod, request, kStartTimeout);
  while (true) {
    const absl::StatusOr<std::optional<grpc::ByteBuffer>> message = stream->Read(kNoTimeout);
    if (!message.ok()) return message.status();
    if (!message->has_value()) return stream->Finish(kStartTimeout);
    v1::VersionEvent event;
    if (absl::Status status = Parse(**message, event); !status.ok()) return status;
    heard_ = true;
    Hear(event.version());
  }
}

void WatchAbove::Hear(const v1::VersionSummary& version) {
  std::unique_ptr<ModelMirror>& mirror = mirrors_[version.model()];
  if (mirror == nullptr) mirror = std::make_unique<ModelMirror>(version.model(), above_, parts_);
  mirror->Hear(version);
}

}  // namespace refit
