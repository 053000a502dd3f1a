#include "server/relay/model_mirror.h"

#include <chrono>
#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "client/calls/unary_call.h"
#include "client/worker/backoff.h"
#include "refit/v1/inspect.grpc.pb.h"
#include "server/relay/listen_above.h"
#include "server/relay/version_mirror.h"

namespace refit {
namespace {

constexpr std::chrono::seconds kListTimeout{30};

}  // namespace

ModelMirror::ModelMirror(std::string model, const Above& above, ServerParts& parts)
    : model_(std::move(model)),
      above_(above),
      parts_(parts),
      stop_(above.connection->calls->cancelled()),
      observer_(parts.ancestry.Observe([news = news_] { news->Tell(); })),
      thread_([this] { Run(); }) {}

ModelMirror::~ModelMirror() {
  parts_.ancestry.StopObserving(observer_);
  news_->End();
  thread_.join();
}

void ModelMirror::Hear(const v1::VersionSummary& version) {
  {
    absl::MutexLock lock(&mutex_);
    const bool can_be_pulled =
        version.state() == v1::VERSION_STATE_OPEN || version.state() == v1::VERSION_STATE_COMMITTED;
    heard_.erase(KeyOf(version));
    if (can_be_pulled) heard_.emplace(KeyOf(version), version);
  }
  news_->Tell();
  Release(KeyOf(version));
}

void ModelMirror::HearAnew() {
  absl::MutexLock lock(&mutex_);
  heard_.clear();
}

void ModelMirror::Run() {
  Backoff backoff(kFirstPauseAbove, kLongestPauseAbove);
  while (news_->Await()) {
    while (const std::optional<v1::VersionSummary> next = Next()) {
      const absl::Status status = Mirror(*next);
      Release(KeyOf(*next));
      above_.received.SetMissing(model_, status);
      if (status.ok()) {
        backoff.Reset();
        continue;
      }
      if (!stop_.stopped()) {
        parts_.admission.log.Warning(
            "a version from above is not here yet",
            {{"model", model_}, {"version", absl::StrCat(next->version())}, {"error", status.ToString()}});
      }
      if (!backoff.Wait(stop_)) return;
    }
  }
}

std::optional<v1::VersionSummary> ModelMirror::Next() const {
  std::optional<v1::VersionSummary> committed;
  std::optional<v1::VersionSummary> open;
  {
    absl::MutexLock lock(&mutex_);
    for (const auto& [key, version] : heard_) {
      (version.state() == v1::VERSION_STATE_OPEN ? open : committed) = version;
    }
  }
  if (committed.has_value() && Lacks(*committed)) return committed;
  if (open.has_value() && Lacks(*open)) return open;
  return std::nullopt;
}

// Whether there is something to do about it. If the root is another process than before, it may have begun anew.
bool ModelMirror::Lacks(const v1::VersionSummary& version) const {
  if (RootsLife() != roots_life_) return true;
  const std::shared_ptr<Version> here = parts_.store.FindKey(model_, KeyOf(version));
  const v1::VersionSummary known = here == nullptr ? v1::VersionSummary() : here->Summary();
  if (known.has_manifest_digest()) {
    return version.has_manifest_digest() && version.manifest_digest() != known.manifest_digest();
  }
  // What lies below the versions here was skipped.
  const VersionStore::ModelRecord record = parts_.store.Record(model_);
  return VersionKey{record.trainer_epoch, record.newest_committed} < KeyOf(version);
}

// While the way to the root is cut, it counts as the one before.
uint64_t ModelMirror::RootsLife() const {
  const v1::Ancestry ancestry = parts_.ancestry.Get();
  return ancestry.rooted() ? ancestry.services(0).life() : roots_life_;
}

absl::Status ModelMirror::Mirror(const v1::VersionSummary& version) {
  const uint64_t roots_life = RootsLife();
  if (roots_life != roots_life_) return FollowRoot(roots_life);
  const std::shared_ptr<Version> here = parts_.store.FindKey(model_, KeyOf(version));
  if (here != nullptr && here->Summary().has_manifest_digest()) {
    parts_.store.ForgetAfter(model_, {version.trainer_epoch(), version.version() - 1},
                             "the root has another version under its number");
  }
  return MirrorVersion(version, above_, parts_);
}

// If a restarted root has lost versions that are here, they are forgotten here, too. What is here is looked at first:
// the root had all of it then.
absl::Status ModelMirror::FollowRoot(uint64_t roots_life) {
  const VersionStore::ModelRecord here = parts_.store.Record(model_);
  const std::unique_ptr<v1::InspectService::Stub> stub =
      v1::InspectService::NewStub(above_.connection->routes->Present()->channel);
  v1::ListVersionsRequest request;
  request.set_model(model_);
  const absl::StatusOr<v1::ListVersionsResponse> list =
      CallUnary(*stub, &v1::InspectService::Stub::ListVersions, request, kListTimeout,
                absl::StrCat("versions of ", model_, " at ", above_.connection->address), above_.connection->calls);
  if (!list.ok()) return list.status();
  VersionKey newest;
  for (const v1::Lineage& lineage : list->lineages()) newest = {lineage.trainer_epoch(), lineage.newest_committed()};
  if (newest < VersionKey{here.trainer_epoch, here.newest_committed}) {
    parts_.admission.log.Warning("the root was restarted without versions that are here; they are given up",
                                 {{"model", model_},
                                  {"newest_here", absl::StrCat(here.newest_committed)},
                                  {"newest_above", absl::StrCat(newest.number)}});
    parts_.store.ForgetAfter(model_, newest, "the root was restarted without it");
  }
  roots_life_ = roots_life;
  return absl::OkStatus();
}

// Passes on that installs of a version are released above.
void ModelMirror::Release(const VersionKey& key) {
  {
    absl::MutexLock lock(&mutex_);
    const auto heard = heard_.find(key);
    if (heard == heard_.end() || heard->second.installs_held()) return;
  }
  const std::shared_ptr<Version> here = parts_.store.FindKey(model_, key);
  if (here == nullptr || !here->Summary().installs_held()) return;
  // Fails if the version has ended meanwhile; then nobody waits for it.
  (void)parts_.store.ReleaseInstalls(*here);
}

}  // namespace refit
