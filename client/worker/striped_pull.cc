#include "client/worker/striped_pull.h"

#include <algorithm>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/worker/backoff.h"
#include "client/worker/cut.h"
#include "client/worker/pull_errors.h"
#include "client/worker/pull_request.h"
#include "client/worker/pull_run.h"
#include "common/limits/within_memory.h"
#include "common/tensor/stream_shares.h"
#include "common/wire/digest.h"

namespace refit {
namespace {

// A request with the names and boxes of more tensors would be too long.
constexpr size_t kMostTensors = 5'000;
// What is pulled to find out how many connections pay: so much, and then for so long.
constexpr uint64_t kFirstTrialBytes = 32 << 20;
constexpr double kTrialSeconds = 0.4;
// What takes less needs no trial.
constexpr double kWorthATrialSeconds = 1;
// Between the attempts of a connection that was refused.
constexpr std::chrono::milliseconds kFirstPause{20};
constexpr std::chrono::milliseconds kLongestPause{200};

void AddTraffic(const PullTraffic& traffic, PullTraffic& sum) {
  sum.wire_bytes += traffic.wire_bytes;
  sum.raw_chunks += traffic.raw_chunks;
  sum.delta_chunks += traffic.delta_chunks;
  sum.unchanged_chunks += traffic.unchanged_chunks;
  sum.changed_elements += traffic.changed_elements;
  if (traffic.base_version.has_value()) sum.base_version = traffic.base_version;
  if (!traffic.base_refused.empty()) sum.base_refused = traffic.base_refused;
}

}  // namespace

StripedPull::StripedPull(std::shared_ptr<SubscriberConnection> connection, SpareSubscribers& spares,
                         const PullOptions& options, TensorSink& sink)
    : connection_(std::move(connection)),
      spares_(spares),
      options_(options),
      sink_(sink),
      context_(PullContext(options, connection_->address)) {}

absl::StatusOr<PullResult> StripedPull::Run() {
  const Clock::time_point begin = Clock::now();
  absl::StatusOr<AskedManifest> manifest = AskManifest(*connection_, options_, context_);
  // It may have been cut while nobody used it.
  if (IsCut(manifest.status())) manifest = AskManifest(*connection_, options_, context_);
  if (!manifest.ok()) return PullAlone();
  manifest_ = *std::move(manifest);
  PartCursor cursor(manifest_.parts);
  const bool is_small = UsefulStreams(cursor.left_bytes(), 2) == 1;
  const size_t streams = Streams();
  if (streams == 1 || is_small || manifest_.is_streamed || manifest_.parts.size() > kMostTensors ||
      !sink_.TakesSeveral()) {
    return PullAlone();
  }
  const ActiveCalls::Entry entry(connection_->calls, [this] { Cancel(); });
  if (absl::Status status = sink_.Begin(manifest_.version, manifest_.parts); !status.ok()) return status;
  joint_ = std::make_unique<JointTensors>(sink_, manifest_.parts, manifest_.version.chunk_bytes);
  base_ = std::make_unique<BaseParts>(options_.base, manifest_.version.chunk_bytes);
  if (streams == 0) {
    if (absl::Status status = PullTrial(cursor); !status.ok()) return status;
  }
  const size_t rest = streams == 0 ? spares_.trial().streams() : streams;
  if (absl::Status status = PullNext(cursor, cursor.left_bytes(), rest); !status.ok()) return status;
  if (absl::Status status = Verify(); !status.ok()) return status;
  result_.tensors = manifest_.parts.size();
  result_.elapsed = Clock::now() - begin;
  return result_;
}

// 0: it is to be found out. What changes of a base take is no measure of a connection.
size_t StripedPull::Streams() const {
  if (options_.streams > 0) return options_.streams;
  if (spares_.trial().is_settled()) return spares_.trial().streams();
  return options_.base == nullptr ? 0 : 1;
}

// A pull over one connection, which also knows how to wait for a service, and says what is wrong.
absl::StatusOr<PullResult> StripedPull::PullAlone() { return PullRun(connection_, options_, sink_).Run(); }

// Pulls some bytes over one connection, some over two, and so on, as long as that pays.
absl::Status StripedPull::PullTrial(PartCursor& cursor) {
  StreamTrial& trial = spares_.trial();
  uint64_t bytes = kFirstTrialBytes;
  double rate = 0;
  while (!trial.is_settled()) {
    const uint64_t left = cursor.left_bytes();
    if (left < 2 * bytes || (rate > 0 && static_cast<double>(left) / rate < kWorthATrialSeconds)) break;
    const size_t streams = trial.streams();
    const Clock::time_point begin = Clock::now();
    if (absl::Status status = PullNext(cursor, bytes, streams); !status.ok()) return status;
    const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    rate = static_cast<double>(left - cursor.left_bytes()) / seconds;
    bytes = std::max<uint64_t>(kFirstTrialBytes, static_cast<uint64_t>(rate * kTrialSeconds));
    if (seconds >= kTrialSeconds / 2) trial.Note(streams, rate);
  }
  return absl::OkStatus();
}

absl::Status StripedPull::PullNext(PartCursor& cursor, uint64_t bytes, size_t streams) {
  Divide(cursor.Take(bytes), UsefulStreams(bytes, streams));
  joint_->Expect(lanes_.size());
  for (size_t i = 0; i < lanes_.size(); ++i) {
    Lane& lane = *lanes_[i];
    lane.is_first = i == 0 && result_.streams == 0;
    try {
      lane.thread =
          std::thread([this, &lane] { joint_->Ended(WithinMemory("a pull", [&] { return RunLane(lane); })); });
    } catch (const std::system_error& error) {
      joint_->Ended(absl::ResourceExhaustedError(
          absl::StrCat(context_, ": no thread for each of ", lanes_.size(), " connections: ", error.what())));
    }
  }
  const absl::Status status = joint_->Serve([this] { Cancel(); });
  for (const std::unique_ptr<Lane>& lane : lanes_) {
    if (lane->thread.joinable()) lane->thread.join();
  }
  result_.streams = std::max<uint64_t>(result_.streams, lanes_.size());
  const std::lock_guard lock(mutex_);
  for (const std::unique_ptr<Lane>& lane : lanes_) {
    if (status.ok() && !cancelled_) spares_.GiveBack(std::move(lane->subscriber));
  }
  lanes_.clear();
  return status;
}

void StripedPull::Divide(const std::vector<PartSlice>& slices, size_t streams) {
  std::vector<TensorPart> parts;
  parts.reserve(slices.size());
  for (const PartSlice& slice : slices) parts.push_back(slice.part);
  const std::vector<std::vector<StreamRun>> runs = DivideAmong(streams, parts, /*whole=*/options_.base != nullptr);
  std::vector<std::unique_ptr<Lane>> lanes;
  for (size_t i = 0; i < streams; ++i) lanes.push_back(std::make_unique<Lane>());
  for (size_t i = 0; i < slices.size(); ++i) {
    const PartSlice& slice = slices[i];
    for (const StreamRun& run : runs[i]) {
      lanes[run.stream]->asked.push_back({slice.index, run.box, slice.begin + run.begin, slice.begin + run.end});
    }
  }
  // One that asks for nothing would get everything.
  lanes.erase(std::remove_if(lanes.begin(), lanes.end(), [](const auto& lane) { return lane->asked.empty(); }),
              lanes.end());
  const std::lock_guard lock(mutex_);
  lanes_ = std::move(lanes);
}

absl::Status StripedPull::RunLane(Lane& lane) {
  absl::StatusOr<std::unique_ptr<Subscriber>> taken = spares_.Take([this] {
    const std::lock_guard lock(mutex_);
    return cancelled_;
  });
  if (!taken.ok()) return taken.status();
  {
    const std::lock_guard lock(mutex_);
    lane.subscriber = *std::move(taken);
    if (cancelled_) lane.subscriber->Cancel();
  }
  const absl::Status status = PullLane(lane);
  SetPulling(lane, false);
  return status;
}

// A service that takes fewer pulls at a time than there are connections takes the others once some have ended.
absl::Status StripedPull::PullLane(Lane& lane) {
  Backoff backoff(kFirstPause, kLongestPause);
  while (true) {
    SetPulling(lane, true);
    PartSink sink(*joint_, lane.asked);
    const absl::StatusOr<PullResult> result = lane.subscriber->Pull(OptionsOf(lane), sink);
    if (result.ok()) return Add(*result, lane.is_first);
    const bool is_refused = absl::IsResourceExhausted(result.status()) && !sink.begun();
    SetPulling(lane, false);
    if (!is_refused || !MayWait() || !backoff.Wait(connection_->calls->cancelled())) return result.status();
  }
}

void StripedPull::SetPulling(Lane& lane, bool is_pulling) {
  const std::lock_guard lock(mutex_);
  lane.is_pulling = is_pulling;
}

// Whether this pull has its share of the service.
bool StripedPull::MayWait() {
  const std::lock_guard lock(mutex_);
  if (cancelled_) return false;
  const bool was_served = served_at_.has_value() && Clock::now() - *served_at_ < options_.resume_within;
  return was_served || std::any_of(lanes_.begin(), lanes_.end(), [](const auto& lane) { return lane->is_pulling; });
}

PullOptions StripedPull::OptionsOf(const Lane& lane) const {
  PullOptions options = options_;
  options.streams = 1;
  options.version = manifest_.version.version;
  options.trainer_epoch = manifest_.version.trainer_epoch;
  options.filter.clear();
  options.rules.clear();
  options.boxes.clear();
  options.names.clear();
  if (options.life == 0) options.life = connection_->life;
  if (!lane.is_first) options.installed.reset();
  std::vector<TensorPart> parts;
  for (const AskedPart& asked : lane.asked) {
    const TensorPart part{manifest_.parts[asked.tensor].tensor, asked.box};
    options.names.push_back(part.tensor.name);
    if (!part.is_whole()) options.boxes.emplace_back(part.tensor.name, part.box);
    parts.push_back(part);
  }
  options.base = base_->Of(parts);
  return options;
}

// All connections must have pulled the same version.
absl::Status StripedPull::Add(const PullResult& result, bool is_first) {
  const std::lock_guard lock(mutex_);
  served_at_ = Clock::now();
  if (result_.version.version == 0) {
    result_.version = result.version;
  } else if (result.version.manifest_digest != result_.version.manifest_digest) {
    return absl::AbortedError(
        absl::StrCat(context_, ": while it was pulled, version ", result.version.version, " was replaced by another"));
  }
  if (is_first) result_.skipped = result.skipped;
  result_.bytes += result.bytes;
  result_.resumed += result.resumed;
  result_.address = result.address;
  result_.moved += result.moved;
  result_.waited = std::max(result_.waited, result.waited);
  AddTraffic(result.traffic, result_.traffic);
  return absl::OkStatus();
}

// The service's digest of a selection of which each connection has a part is not known.
absl::Status StripedPull::Verify() {
  ManifestDigester digester;
  for (size_t i = 0; i < manifest_.parts.size(); ++i) digester.Add(manifest_.parts[i], joint_->digests()[i]);
  result_.selection_digest = digester.Finish();
  if (!manifest_.selects_all || result_.version.manifest_digest == result_.selection_digest) return absl::OkStatus();
  return PullErrors(context_).Mismatch("the manifest", result_.version.manifest_digest.value_or(0),
                                       result_.selection_digest);
}

void StripedPull::Cancel() {
  const std::lock_guard lock(mutex_);
  cancelled_ = true;
  for (const std::unique_ptr<Lane>& lane : lanes_) {
    if (lane->subscriber != nullptr) lane->subscriber->Cancel();
  }
}

}  // namespace refit
