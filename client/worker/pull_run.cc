#include "client/worker/pull_run.h"

#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "client/worker/cut.h"
#include "client/worker/pull_lease.h"
#include "client/worker/pull_request.h"
#include "common/net/status.h"
#include "refit/fork_guard.h"

namespace refit {
namespace {

constexpr std::chrono::milliseconds kFirstPause{100};
constexpr std::chrono::seconds kLongestPause{2};
// A chunk that arrives damaged this often was not damaged on the way.
constexpr int kMostDamaged = 3;

v1::PullRequest MakeRequest(const PullOptions& options, uint64_t life) {
  v1::PullRequest request;
  FillSelection(options, request);
  request.set_worker(options.worker);
  request.set_life(options.life != 0 ? options.life : life);
  request.set_batches(true);
  if (options.installed.has_value()) request.set_installed_version(*options.installed);
  if (options.installed_epoch.has_value()) request.set_installed_epoch(*options.installed_epoch);
  request.mutable_names()->Assign(options.names.begin(), options.names.end());
  return request;
}

void NameBase(const PullBase& base, v1::PullRequest& request) {
  request.add_encodings(v1::CHUNK_ENCODING_DELTA);
  request.set_base_version(base.version);
  request.set_base_epoch(base.trainer_epoch);
  request.set_base_digest(base.digest);
}

// Whether the service says that it is too busy for a pull, or does not have, or no longer has, the version.
bool IsRefusal(const absl::Status& status) {
  return absl::IsResourceExhausted(status) || absl::IsNotFound(status) || absl::IsFailedPrecondition(status);
}

// Of several refusals, the one that tells a caller most: where a service was busy, it is worth a wait.
absl::StatusCode CodeOf(const std::map<std::string, absl::Status>& refusals) {
  for (const auto code :
       {absl::StatusCode::kResourceExhausted, absl::StatusCode::kUnavailable, absl::StatusCode::kFailedPrecondition}) {
    for (const auto& [address, status] : refusals) {
      if (status.code() == code) return code;
    }
  }
  return absl::StatusCode::kNotFound;
}

}  // namespace

PullRun::PullRun(std::shared_ptr<SubscriberConnection> connection, const PullOptions& options, TensorSink& sink)
    : connection_(std::move(connection)),
      options_(options),
      context_(PullContext(options, connection_->address)),
      receiver_(options, context_, sink),
      backoff_(kFirstPause, kLongestPause) {}

absl::StatusOr<PullResult> PullRun::Run() {
  const Clock::time_point begin = Clock::now();
  Clock::time_point last_gain = begin;
  connection_->routes->ReturnToNearest();
  while (true) {
    const uint64_t before = receiver_.result().bytes;
    const StreamEnd end = RunStream();
    if (end.status.ok()) break;
    if (GoesOnUnmapped(end) || GoesOnWithoutBase(end)) continue;
    const bool gained = receiver_.result().bytes > before;
    if (gained) last_gain = Clock::now();
    if (end.why != Why::kRefused && (cut_.ok() || gained)) cut_ = end.status;
    if (!MayResume(end, gained, last_gain)) return Failure(end.status);
    if (end.why == Why::kCut) ++resumed_;
  }
  connection_->newest.See(receiver_.result().version);
  PullResult result = receiver_.result();
  result.elapsed = Clock::now() - begin;
  result.waited = waited_;
  result.resumed = resumed_;
  result.not_mapped = not_mapped_;
  result.address = route_->address;
  result.moved = moved_;
  return result;
}

absl::Status PullRun::TakeRoute() {
  Candidates::Addresses refused;
  for (const auto& [address, status] : refusals_) refused.insert(address);
  absl::StatusOr<std::shared_ptr<const Route>> route = connection_->routes->Take(refused);
  if (!route.ok()) return route.status();
  if (route_ != nullptr && route_->address != (*route)->address) ++moved_;
  route_ = *std::move(route);
  context_ = PullContext(options_, route_->address);
  return absl::OkStatus();
}

// Every service was tried. One that is down may come back; and if they know the version, it is only on its way to the
// others.
PullRun::StreamEnd PullRun::NoRoute(const absl::Status& status) {
  context_ = PullContext(options_, connection_->address);
  if (!connection_->routes->several()) return {Annotate(status, context_), Why::kCut};
  const std::map<std::string, absl::Status> refusals = std::exchange(refusals_, {});
  std::vector<absl::string_view> reasons;
  reasons.reserve(refusals.size() + 1);
  for (const auto& [address, refusal] : refusals) reasons.push_back(refusal.message());
  const bool all_refused = absl::IsNotFound(status);
  if (!all_refused) reasons.push_back(status.message());
  const absl::StatusCode code = all_refused ? CodeOf(refusals) : status.code();
  const bool may_come = refusals.empty() || receiver_.place().has_value();
  if (!may_come) connection_->newest.Forget(options_.model);
  return {{code, absl::StrCat(context_, ": no service serves it: ", absl::StrJoin(reasons, "; "))},
          may_come ? Why::kCut : Why::kOther};
}

PullRun::StreamEnd PullRun::RunStream() {
  if (absl::Status status = TakeRoute(); !status.ok()) return NoRoute(status);
  const absl::Status shares =
      not_mapped_.empty() ? connection_->TryToShare(*route_) : absl::UnavailableError(not_mapped_);
  if (!shares.ok() && connection_->transport == Transport::kSharedMemory) {
    return {{absl::IsResourceExhausted(shares) ? shares.code() : absl::StatusCode::kUnavailable,
             absl::StrCat("service at ", route_->address, ": ", shares.message())},
            connection_->routes->several() ? Why::kRefused : Why::kOther};
  }
  if (absl::IsResourceExhausted(shares)) not_mapped_ = std::string(shares.message());
  const std::shared_ptr<PullLease> lease =
      MakeOwnedByProcess<PullLease>(connection_, route_, NextRequest(shares.ok()), options_.idle_timeout);
  receiver_.BeginStream(lease, DescriptorClient(route_->address), context_);
  receiver_.ExpectAtLeast(LeastWanted());
  StreamEnd end = Receive(lease->stream());
  if (end.status.ok()) lease->set_number(receiver_.lease());
  if (receiver_.could_not_map()) lease->stream()->Cancel();  // mapped memory stays, and the stream is not read further
  return end;
}

// Not less than another service has shown already. With one service there is no other.
std::optional<VersionKey> PullRun::LeastWanted() const {
  if (!connection_->routes->several()) return std::nullopt;
  const std::optional<VersionKey> newest = connection_->newest.Of(options_.model);
  const bool is_of_run = newest.has_value() && options_.trainer_epoch.value_or(newest->epoch) == newest->epoch;
  return is_of_run ? newest : std::nullopt;
}

// From the receiver's current place.
v1::PullRequest PullRun::NextRequest(bool shared_memory) const {
  v1::PullRequest request = MakeRequest(options_, connection_->life);
  request.set_shared_memory(shared_memory);
  if (receiver_.base() != nullptr) NameBase(*receiver_.base(), request);
  if (const std::optional<PullReceiver::Place> place = receiver_.place()) {
    request.mutable_version()->set_number(place->version.number);
    request.mutable_version()->set_trainer_epoch(place->version.epoch);
    *request.mutable_resume() = place->cursor;
    request.set_skip_manifest(true);
  }
  return request;
}

PullRun::StreamEnd PullRun::Receive(SubscriberStream& stream) {
  while (receiver_.lease() == 0) {
    const Clock::time_point wait_begin = Clock::now();
    const absl::StatusOr<std::optional<grpc::ByteBuffer>> message = stream->Read(options_.idle_timeout);
    waited_ += Clock::now() - wait_begin;
    if (!message.ok()) return {Annotate(message.status(), context_)};
    if (!message->has_value()) return End(stream);
    const absl::Status status = receiver_.OnMessage(**message);
    if (!status.ok() && receiver_.is_behind()) return {status, Why::kRefused};
    if (!status.ok()) return {status, receiver_.chunk_was_damaged() ? Why::kCut : Why::kOther};
  }
  return {};
}

PullRun::StreamEnd PullRun::End(SubscriberStream& stream) {
  const absl::Status status = stream->Finish(options_.idle_timeout);
  if (status.ok()) return {receiver_.OnEnd()};
  const bool cancelled = connection_->calls->cancelled().stopped();
  const bool cut = IsCut(status) && !receiver_.OnEnd().ok() && !cancelled;
  const bool refused = IsRefusal(status) && !cancelled && connection_->routes->several();
  return {Annotate(status, context_), cut ? Why::kCut : refused ? Why::kRefused : Why::kOther};
}

// Memory that cannot be mapped is requested over the connection, from the current place.
bool PullRun::GoesOnUnmapped(const StreamEnd& end) {
  if (end.why != Why::kOther || !receiver_.could_not_map() || !not_mapped_.empty() ||
      connection_->transport != Transport::kAuto)
    return false;
  not_mapped_ = std::string(end.status.message());
  return true;
}

// What depends on a base that is not the service's is requested again, whole.
bool PullRun::GoesOnWithoutBase(const StreamEnd& end) {
  if (end.why != Why::kOther || !receiver_.base_failed()) return false;
  receiver_.RefuseBase(absl::StrCat("it is not the one that the service has: ", WithoutContext(end.status)));
  return true;
}

bool PullRun::MayResume(const StreamEnd& end, bool gained, Clock::time_point last_gain) {
  if (gained) {
    backoff_.Reset();
    damaged_ = 0;
    refusals_.clear();
  }
  if (GoesElsewhere(end)) return true;
  if (end.why != Why::kCut || Clock::now() - last_gain >= options_.resume_within) return false;
  if (absl::IsDataLoss(end.status) && ++damaged_ >= kMostDamaged) return false;
  return backoff_.Wait(connection_->calls->cancelled());
}

// Whatever serves the pull next, it is another connection. A service that refused it is not asked again at once.
bool PullRun::GoesElsewhere(const StreamEnd& end) {
  const bool is_silent = absl::IsDeadlineExceeded(end.status);
  if (route_ == nullptr || (end.why == Why::kOther && !is_silent)) return false;
  connection_->routes->Leave(*route_);
  if (end.why == Why::kRefused) refusals_.insert_or_assign(route_->address, end.status);
  return end.why == Why::kRefused;
}

// If resuming a pull failed, the error that interrupted it is at least as important.
absl::Status PullRun::Failure(const absl::Status& status) const {
  if (cut_.ok() || cut_ == status) return status;
  if (absl::IsDataLoss(cut_)) {
    return absl::DataLossError(
        absl::StrCat(cut_.message(), " (and when it was to come again: ", WithoutContext(status), ")"));
  }
  return {status.code(), absl::StrCat(status.message(), " (when it was resumed after: ", WithoutContext(cut_), ")")};
}

absl::string_view PullRun::WithoutContext(const absl::Status& status) const {
  absl::string_view message = status.message();
  absl::ConsumePrefix(&message, absl::StrCat(context_, ": "));
  return message;
}

}  // namespace refit
