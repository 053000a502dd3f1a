#include "server/pull/watch_reactor.h"

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/synchronization/mutex.h"
#include "common/net/status.h"
#include "server/access/refused_call.h"
#include "server/process/step.h"

namespace refit {
namespace {

// Sends each version of a model whose state has changed, with its newest state only. Sends nothing to a worker that
// only shows that it is present.
class WatchReactor final : public grpc::ServerWriteReactor<v1::VersionEvent>,
                           public std::enable_shared_from_this<WatchReactor> {
 public:
  WatchReactor(PullContext& context, PeerStreams::Stream stream, const v1::WatchVersionsRequest& request,
               std::unique_ptr<WorkerRegistry::Watch> worker)
      : context_(context),
        stream_(std::move(stream)),
        model_(request.all_models() ? std::nullopt : std::make_optional(request.model())),
        presence_(request.presence()),
        after_{request.trainer_epoch(), request.after()},
        every_epoch_(!request.has_trainer_epoch()),
        worker_(std::move(worker)) {}

  void Start() {
    self_ = shared_from_this();
    uint64_t observer = 0;  // 0: no observer
    if (!presence_) {
      const auto changed = [weak = weak_from_this()](const std::shared_ptr<Version>& version) {
        if (const std::shared_ptr<WatchReactor> self = weak.lock()) self->Changed(version);
      };
      VersionStore& store = context_.store;
      observer = model_.has_value() ? store.Observe(*model_, changed) : store.ObserveAll(changed);
    }
    const uint64_t end = context_.watches.Add([weak = weak_from_this()] {
      if (const std::shared_ptr<WatchReactor> self = weak.lock()) {
        self->End(ToGrpc(ShuttingDown()));
      }
    });
    if (end == 0) End(ToGrpc(ShuttingDown()));
    {
      absl::MutexLock lock(&mutex_);
      observer_ = observer;
      end_ = end;
    }
    if (presence_) return;
    for (const std::shared_ptr<Version>& version : context_.store.List(model_.value_or(""))) Changed(version);
  }

  void OnWriteDone(bool ok) override {
    {
      absl::MutexLock lock(&mutex_);
      writing_ = false;
      if (!ok) SetEnding(grpc::Status::CANCELLED);
    }
    Advance();
  }

  void OnCancel() override { End(grpc::Status::CANCELLED); }

  void OnDone() override {
    uint64_t observer = 0;
    uint64_t end = 0;
    {
      absl::MutexLock lock(&mutex_);
      observer = observer_;
      end = end_;
    }
    context_.store.StopObserving(observer);
    context_.watches.Remove(end);
    worker_.reset();
    self_.reset();
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

  void Advance() ABSL_LOCKS_EXCLUDED(mutex_) {
    const Step step = NextStep();
    if (step == Step::kWrite) StartWrite(&event_);
    if (step == Step::kFinish) Finish(ending_);
  }

  void End(const grpc::Status& status) ABSL_LOCKS_EXCLUDED(mutex_) {
    {
      absl::MutexLock lock(&mutex_);
      SetEnding(status);
    }
    Advance();
  }

  void SetEnding(const grpc::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (!std::exchange(ended_, true)) ending_ = status;
  }

  Step NextStep() ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    if (writing_ || finished_) return Step::kNothing;
    if (ended_) {
      finished_ = true;
      return Step::kFinish;
    }
    if (changed_.empty()) return Step::kNothing;
    *event_.mutable_version() = changed_.begin()->second->Summary();
    changed_.erase(changed_.begin());
    writing_ = true;
    return Step::kWrite;
  }

  PullContext& context_;
  const PeerStreams::Stream stream_;
  const std::optional<std::string> model_;  // nullopt: all
  const bool presence_;
  const VersionKey after_;
  const bool every_epoch_;
  std::unique_ptr<WorkerRegistry::Watch> worker_;  // kept until OnDone
  std::shared_ptr<WatchReactor> self_;
  v1::VersionEvent event_;

  absl::Mutex mutex_;
  uint64_t observer_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t end_ ABSL_GUARDED_BY(mutex_) = 0;
  using Key = std::pair<std::string, VersionKey>;  // with the model
  std::map<Key, std::shared_ptr<Version>> changed_ ABSL_GUARDED_BY(mutex_);
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  grpc::Status ending_;  // set once, before ended_ is seen
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
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
