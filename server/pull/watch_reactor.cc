#include "server/pull/watch_reactor.h"

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/synchronization/mutex.h"
#include "server/access/news_reactor.h"
#include "server/access/refused_call.h"

namespace refit {
namespace {

// Sends each version whose state has changed, with its newest state only. Sends nothing to a worker that only shows
// that it is present.
class WatchReactor final : public NewsReactor<v1::VersionEvent> {
 public:
  WatchReactor(PullContext& context, PeerStreams::Stream stream, const v1::WatchVersionsRequest& request,
               std::unique_ptr<WorkerRegistry::Watch> worker)
      : NewsReactor(context.watches),
        store_(context.store),
        stream_(std::move(stream)),
        model_(request.all_models() ? std::nullopt : std::make_optional(request.model())),
        presence_(request.presence()),
        after_{request.trainer_epoch(), request.after()},
        every_epoch_(!request.has_trainer_epoch()),
        worker_(std::move(worker)) {}

  void Start() {
    Begin();
    if (presence_) return;
    const auto changed = [weak = weak_from_this()](const std::shared_ptr<Version>& version) {
      if (const auto self = weak.lock()) static_cast<WatchReactor&>(*self).Changed(version);
    };
    const uint64_t observer = model_.has_value() ? store_.Observe(*model_, changed) : store_.ObserveAll(changed);
    {
      absl::MutexLock lock(&mutex_);
      observer_ = observer;
    }
    for (const std::shared_ptr<Version>& version : store_.List(model_.value_or(""))) Changed(version);
  }

 private:
  void Changed(const std::shared_ptr<Version>& version) {
    const VersionKey key = version->key();
    if (every_epoch_ ? key.number <= after_.number : !(after_ < key)) return;
    {
      absl::MutexLock lock(&mutex_);
      changed_[{version->model(), key}] = version;
    }
    Advance();
  }

  bool TakeNews(v1::VersionEvent& event) override {
    absl::MutexLock lock(&mutex_);
    if (changed_.empty()) return false;
    *event.mutable_version() = changed_.begin()->second->Summary();
    changed_.erase(changed_.begin());
    return true;
  }

  void StopListening() override {
    uint64_t observer = 0;  // 0: no observer
    {
      absl::MutexLock lock(&mutex_);
      observer = observer_;
    }
    store_.StopObserving(observer);
    worker_.reset();
  }

  VersionStore& store_;
  const PeerStreams::Stream stream_;
  const std::optional<std::string> model_;  // nullopt: all
  const bool presence_;
  const VersionKey after_;
  const bool every_epoch_;
  std::unique_ptr<WorkerRegistry::Watch> worker_;  // kept to the end

  absl::Mutex mutex_;
  uint64_t observer_ ABSL_GUARDED_BY(mutex_) = 0;
  using Key = std::pair<std::string, VersionKey>;  // with the model
  std::map<Key, std::shared_ptr<Version>> changed_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

grpc::ServerWriteReactor<v1::VersionEvent>* StartWatch(PullContext& pulls, const v1::WatchVersionsRequest& request,
                                                       const grpc::CallbackServerContext& call) {
  const WorkerId worker = WorkerOf(request, call);
  absl::StatusOr<PeerStreams::Stream> stream = pulls.admission.peer_streams.Enter(call.peer());
  const absl::Status status = stream.ok() ? pulls.workers.CheckRoom(worker) : stream.status();
  pulls.admission.counters.limits.Add(status);
  if (!status.ok()) return RefusedCall<grpc::ServerWriteReactor<v1::VersionEvent>>::Start(status);
  const auto reactor =
      std::make_shared<WatchReactor>(pulls, *std::move(stream), request, pulls.workers.StartWatch(worker, call.peer()));
  reactor->Start();
  return reactor.get();
}

}  // namespace refit
