#include "server/fleet/await_workers.h"

#include <grpcpp/alarm.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "common/net/states.h"
#include "common/net/status.h"
#include "common/net/steady_deadline.h"
#include "common/net/version_key.h"
#include "server/access/refused_call.h"

namespace refit {
namespace {

constexpr uint64_t kMaxTimeoutMs = 24 * 3600 * 1000;
constexpr size_t kWorkersNamed = 8;

// Whether the worker has this version, or a later one of the same trainer epoch.
bool Reaches(uint64_t version, uint64_t epoch, const VersionKey& wanted) {
  return epoch == wanted.epoch && version >= wanted.number;
}

bool Has(const v1::Worker& worker, const VersionKey& wanted, v1::WorkerPhase phase) {
  if (worker.has_installed_version() && Reaches(worker.installed_version(), worker.installed_epoch(), wanted)) {
    return true;
  }
  return phase == v1::WORKER_PHASE_STAGED && worker.has_staged_version() &&
         Reaches(worker.staged_version(), worker.staged_epoch(), wanted);
}

// Says why the worker does not have the version yet: "w0 (failed: no room)".
std::string DescribeBehind(const v1::Worker& worker, const VersionKey& wanted) {
  std::vector<std::string> reasons;
  if (worker.has_foreign_version()) {
    reasons.push_back(absl::StrCat("has ", worker.foreign_version(),
                                   " of another run, which this service never had: it takes this one if the trainer "
                                   "has a larger trainer_epoch, or with accept_new_run"));
  } else if (worker.has_installed_version() && worker.installed_epoch() != wanted.epoch) {
    reasons.push_back(absl::StrCat("has ", worker.installed_version(), " of epoch ", worker.installed_epoch()));
  }
  if (worker.state() == v1::WORKER_STATE_FAILED || worker.state() == v1::WORKER_STATE_TORN) {
    reasons.push_back(absl::StrCat(worker.state() == v1::WORKER_STATE_TORN ? "torn" : "failed",
                                   worker.last_error().empty() ? "" : ": ", worker.last_error()));
  }
  return absl::StrCat(Printable(ShownName(worker)),
                      reasons.empty() ? "" : absl::StrCat(" (", absl::StrJoin(reasons, "; "), ")"));
}

// Lists the first few of many names.
std::string Names(const std::vector<std::string>& workers) {
  const auto shown = absl::MakeConstSpan(workers).subspan(0, kWorkersNamed);
  return absl::StrCat(absl::StrJoin(shown, ", "), workers.size() > shown.size() ? ", ..." : "");
}

// Checks the fleet now, after each change, and a last time when the timeout is over. Owns itself from Start until
// OnDone.
class AwaitReactor final : public grpc::ServerUnaryReactor, public std::enable_shared_from_this<AwaitReactor> {
 public:
  AwaitReactor(VersionStore& store, WorkerRegistry& workers, EndTable& ends, const v1::AwaitWorkersRequest& request,
               v1::AwaitWorkersResponse& response)
      : store_(store), workers_(workers), ends_(ends), request_(request), response_(response) {}

  void Start() {
    self_ = shared_from_this();
    if (absl::Status status = Check(); !status.ok()) return End(status);
    const auto look = [weak = weak_from_this()] {
      if (const std::shared_ptr<AwaitReactor> self = weak.lock()) self->Look(/*last=*/false);
    };
    const uint64_t workers = workers_.Observe(look);
    const uint64_t versions = store_.Observe(request_.model(), [look](const std::shared_ptr<Version>&) { look(); });
    const uint64_t end = ends_.Add([weak = weak_from_this()] {
      if (const std::shared_ptr<AwaitReactor> self = weak.lock()) self->End(ShuttingDown());
    });
    {
      absl::MutexLock lock(&mutex_);
      worker_observer_ = workers;
      version_observer_ = versions;
      end_ = end;
      alarm_ = std::make_unique<grpc::Alarm>();
      alarm_->Set(SteadyDeadline(std::chrono::milliseconds(request_.timeout_ms())),
                  [weak = weak_from_this()](bool expired) {
                    const std::shared_ptr<AwaitReactor> self = weak.lock();
                    if (expired && self != nullptr) self->Look(/*last=*/true);
                  });
    }
    if (end == 0) return End(ShuttingDown());
    Look(/*last=*/false);
  }

  void OnCancel() override { End(absl::CancelledError("the trainer waits no longer")); }

  void OnDone() override {
    uint64_t workers = 0;
    uint64_t versions = 0;
    uint64_t end = 0;
    {
      absl::MutexLock lock(&mutex_);
      alarm_.reset();
      workers = worker_observer_;
      versions = version_observer_;
      end = end_;
    }
    ends_.Remove(end);
    workers_.StopObserving(workers);
    store_.StopObserving(versions);
    self_.reset();
  }

 private:
  absl::Status Check() const {
    if (request_.phase() != v1::WORKER_PHASE_STAGED && request_.phase() != v1::WORKER_PHASE_INSTALLED) {
      return absl::InvalidArgumentError(
          absl::StrCat("a trainer waits for phase staged or installed, got ", static_cast<int>(request_.phase())));
    }
    if (request_.version() == 0) return absl::InvalidArgumentError("a trainer waits for a version, numbered from 1");
    if (request_.timeout_ms() > kMaxTimeoutMs) {
      return absl::InvalidArgumentError(absl::StrCat("a timeout of at most ", kMaxTimeoutMs, " ms, got ",
                                                     request_.timeout_ms(), "; ask again after it"));
    }
    return absl::OkStatus();
  }

  void Look(bool last) {
    const uint64_t newest = store_.Epoch(request_.model());
    const VersionKey wanted{request_.has_trainer_epoch() ? request_.trainer_epoch() : newest, request_.version()};
    v1::AwaitWorkersResponse seen;
    std::vector<std::string> behind;
    std::vector<std::string> gone;
    for (const v1::Worker& worker : workers_.List(request_.model())) {
      if (worker.has_relay()) continue;
      if (!worker.connected()) {
        // A worker without a name of its own only pulls. It is not expected to report.
        if (worker.name() != worker.peer()) gone.push_back(Printable(ShownName(worker)));
        continue;
      }
      seen.set_connected(seen.connected() + 1);
      if (Has(worker, wanted, request_.phase())) {
        seen.set_workers(seen.workers() + 1);
      } else {
        behind.push_back(DescribeBehind(worker, wanted));
      }
    }
    const auto named = absl::MakeConstSpan(gone).subspan(0, kWorkersNamed);
    seen.mutable_gone()->Assign(named.begin(), named.end());
    const bool enough = seen.workers() >= std::max<uint32_t>(request_.workers(), 1);
    if (enough && (behind.empty() || !request_.all())) return End(absl::OkStatus(), seen);
    if (absl::Status status = CheckVersion(wanted, newest); !status.ok()) return End(status, seen);
    if (last) End(TimeUp(wanted, seen, behind, gone), seen);
  }

  // An error if the version can no longer reach any worker: it was aborted, or a later run of the trainer has taken
  // over.
  absl::Status CheckVersion(const VersionKey& wanted, uint64_t newest_epoch) const {
    if (wanted.epoch < newest_epoch) {
      return absl::FailedPreconditionError(absl::StrCat("no more workers will have ", Describe(wanted), " of model '",
                                                        Printable(request_.model()), "': trainer epoch ", newest_epoch,
                                                        " has taken over"));
    }
    const std::shared_ptr<Version> version = store_.FindKey(request_.model(), wanted);
    if (version == nullptr) return absl::OkStatus();  // it may still be opened
    const v1::VersionSummary summary = version->Summary();
    if (summary.state() != v1::VERSION_STATE_ABORTED) return absl::OkStatus();
    return absl::AbortedError(absl::StrCat("version ", version->Label(), " was aborted: ", summary.abort_reason()));
  }

  absl::Status TimeUp(const VersionKey& wanted, const v1::AwaitWorkersResponse& seen,
                      const std::vector<std::string>& behind, const std::vector<std::string>& gone) const {
    const std::string done = request_.phase() == v1::WORKER_PHASE_STAGED ? "staged" : "installed";
    return absl::DeadlineExceededError(
        absl::StrCat(seen.workers(), " workers have ", done, " version ", Printable(request_.model()), "/",
                     wanted.number, wanted.epoch == 0 ? "" : absl::StrCat(" of epoch ", wanted.epoch), " within ",
                     request_.timeout_ms(), " ms; expected at least ", std::max<uint32_t>(request_.workers(), 1),
                     request_.all() ? ", and all that are connected" : "", "; ", seen.connected(), " are connected",
                     behind.empty() ? "" : ", behind: ", Names(behind),
                     gone.empty() ? "" : "; gone, and not counted: ", Names(gone)));
  }

  void End(const absl::Status& status, const v1::AwaitWorkersResponse& seen = {}) {
    {
      absl::MutexLock lock(&mutex_);
      if (ended_) return;
      ended_ = true;
    }
    response_ = seen;
    Finish(ToGrpc(status));
  }

  VersionStore& store_;
  WorkerRegistry& workers_;
  EndTable& ends_;
  const v1::AwaitWorkersRequest request_;
  v1::AwaitWorkersResponse& response_;
  std::shared_ptr<AwaitReactor> self_;

  absl::Mutex mutex_;
  std::unique_ptr<grpc::Alarm> alarm_ ABSL_GUARDED_BY(mutex_);
  uint64_t worker_observer_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t version_observer_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t end_ ABSL_GUARDED_BY(mutex_) = 0;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace

grpc::ServerUnaryReactor* StartAwaitWorkers(VersionStore& store, WorkerRegistry& workers, EndTable& ends,
                                            const v1::AwaitWorkersRequest& request,
                                            v1::AwaitWorkersResponse& response) {
  const auto reactor = std::make_shared<AwaitReactor>(store, workers, ends, request, response);
  reactor->Start();
  return reactor.get();
}

}  // namespace refit
