#include "client/worker/pull_run.h"

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
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

// Whether the status is that of a broken connection, or of a service that ends.
bool IsCut(const absl::Status& status) {
  return status.code() == absl::StatusCode::kUnavailable || status.code() == absl::StatusCode::kInternal ||
         status.code() == absl::StatusCode::kUnknown || status.code() == absl::StatusCode::kCancelled;
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
  while (true) {
    const uint64_t before = receiver_.result().bytes;
    const StreamEnd end = RunStream();
    if (end.status.ok()) break;
    if (GoesOnUnmapped(end) || GoesOnWithoutBase(end)) continue;
    const bool gained = receiver_.result().bytes > before;
    if (gained) last_gain = Clock::now();
    if (cut_.ok() || gained) cut_ = end.status;
    if (!MayResume(end, gained, last_gain)) return Failure(end.status);
    ++resumed_;
  }
  PullResult result = receiver_.result();
  result.elapsed = Clock::now() - begin;
  result.waited = waited_;
  result.resumed = resumed_;
  result.not_mapped = not_mapped_;
  return result;
}

PullRun::StreamEnd PullRun::RunStream() {
  const absl::Status shares = not_mapped_.empty() ? connection_->TryToShare() : absl::UnavailableError(not_mapped_);
  if (!shares.ok() && connection_->transport == Transport::kSharedMemory) {
    return {{absl::IsResourceExhausted(shares) ? shares.code() : absl::StatusCode::kUnavailable,
             absl::StrCat("service at ", connection_->address, ": ", shares.message())}};
  }
  if (absl::IsResourceExhausted(shares)) not_mapped_ = std::string(shares.message());
  const std::shared_ptr<PullLease> lease =
      MakeOwnedByProcess<PullLease>(connection_, NextRequest(shares.ok()), options_.idle_timeout);
  receiver_.BeginStream(lease, DescriptorClient(connection_->address));
  StreamEnd end = Receive(lease->stream());
  if (end.status.ok()) lease->set_number(receiver_.lease());
  if (receiver_.could_not_map()) lease->stream()->Cancel();  // mapped memory stays, and the stream is not read further
  return end;
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
    if (!status.ok()) return {status, receiver_.chunk_was_damaged()};
  }
  return {};
}

PullRun::StreamEnd PullRun::End(SubscriberStream& stream) {
  const absl::Status status = stream->Finish(options_.idle_timeout);
  if (status.ok()) return {receiver_.OnEnd()};
  const bool cut = IsCut(status) && !receiver_.OnEnd().ok() && !connection_->calls->cancelled().stopped();
  return {Annotate(status, context_), cut};
}

// Memory that cannot be mapped is requested over the connection, from the current place.
bool PullRun::GoesOnUnmapped(const StreamEnd& end) {
  if (!receiver_.could_not_map() || !not_mapped_.empty() || connection_->transport != Transport::kAuto) return false;
  not_mapped_ = std::string(end.status.message());
  return true;
}

// What depends on a base that is not the service's is requested again, whole.
bool PullRun::GoesOnWithoutBase(const StreamEnd& end) {
  if (!receiver_.base_failed()) return false;
  receiver_.RefuseBase(absl::StrCat("it is not the one that the service has: ", WithoutContext(end.status)));
  return true;
}

bool PullRun::MayResume(const StreamEnd& end, bool gained, Clock::time_point last_gain) {
  if (gained) {
    backoff_.Reset();
    damaged_ = 0;
  }
  if (!end.cut || Clock::now() - last_gain >= options_.resume_within) return false;
  if (receiver_.chunk_was_damaged() && ++damaged_ >= kMostDamaged) return false;
  return backoff_.Wait(connection_->calls->cancelled());
}

// If resuming a pull failed, the error that interrupted it is at least as important.
absl::Status PullRun::Failure(const absl::Status& status) const {
  if (cut_ == status) return status;
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
