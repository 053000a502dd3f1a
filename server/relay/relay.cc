#include "server/relay/relay.h"

#include <optional>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/worker/backoff.h"
#include "common/net/wall_clock.h"
#include "refit/tensor_spec.h"
#include "refit/v1/relay.pb.h"
#include "server/process/process_info.h"
#include "server/relay/listen_above.h"
#include "server/relay/report_above.h"
#include "server/relay/watch_above.h"

namespace refit {
namespace {

constexpr char kAttendMethod[] = "/refit.v1.RelayService/Attend";

// A relay prefers services of its own zone, as a worker does.
ChannelOptions UpstreamOf(const ServerOptions& options) {
  ChannelOptions upstream = options.upstream;
  if (upstream.zone.empty()) upstream.zone = options.zone;
  return upstream;
}

}  // namespace

Relay::Relay(ServerParts& parts, const ServerOptions& options)
    : parts_(parts),
      upstream_(UpstreamOf(options)),
      upstream_streams_(options.upstream_streams),
      changed_at_ns_(UnixNanos()) {}

void Relay::Start() {
  thread_ = std::thread([this] { Run(); });
}

void Relay::Stop() {
  stop_.Stop();
  {
    absl::MutexLock lock(&mutex_);
    if (calls_ != nullptr) calls_->Cancel();
  }
  if (thread_.joinable()) thread_.join();
}

void Relay::Run() {
  Backoff backoff(kFirstPauseAbove, kLongestPauseAbove);
  ChannelOptions options = upstream_;
  options.is_cancelled = [this] { return stop_.stopped(); };
  do {
    absl::StatusOr<std::shared_ptr<SubscriberConnection>> connection = ConnectSubscriber(options);
    SetLost(connection.ok() ? Serve(*std::move(connection)) : connection.status());
  } while (backoff.Wait(stop_));
}

// Goes on over this connection, which comes back by itself, until the relay is stopped or finds itself in a loop.
absl::Status Relay::Serve(std::shared_ptr<SubscriberConnection> connection) {
  {
    absl::MutexLock lock(&mutex_);
    calls_ = connection->calls;
  }
  if (stop_.stopped()) connection->calls->Cancel();
  const Above above{std::move(connection), parts_.ancestry.name(), parts_.ancestry.life(), upstream_streams_,
                    received_};
  ReportAbove report(above, parts_, [this] { return Status(); });
  std::optional<WatchAbove> watch;
  const absl::Cleanup cancel = [&above] { above.connection->calls->Cancel(); };  // then these threads end
  Backoff backoff(kFirstPauseAbove, kLongestPauseAbove);
  do {
    bool in_loop = false;
    const absl::Status ended = Attend(above, [&](const v1::Ancestry& ancestry) {
      if (absl::Status loop = CheckNoLoop(ancestry); !loop.ok()) {
        in_loop = true;
        return loop;
      }
      parts_.ancestry.SetAbove(ancestry);
      SetConnected();
      backoff.Reset();
      if (!watch.has_value()) watch.emplace(above, parts_);
      report.Wake();
      return absl::OkStatus();
    });
    parts_.ancestry.SetAbove(std::nullopt);
    if (in_loop) return ended;
    SetLost(ended);
  } while (backoff.Wait(stop_));
  return absl::CancelledError("the relay is stopped");
}

// Returns why it ended.
absl::Status Relay::Attend(const Above& above, absl::FunctionRef<absl::Status(const v1::Ancestry&)> hear) {
  v1::AttendRequest request;
  request.set_relay(above.name);
  request.set_life(above.life);
  return ListenAbove<v1::Ancestry>(above, kAttendMethod, request, [&](const v1::Ancestry& ancestry) {
    if (ancestry.services().empty()) return absl::InternalError("the service above does not say who it is");
    return hear(ancestry);
  });
}

absl::Status Relay::CheckNoLoop(const v1::Ancestry& ancestry) const {
  std::vector<std::string> way;
  bool loop = false;
  for (const v1::Ancestor& service : ancestry.services()) {
    loop = loop || service.life() == parts_.ancestry.life();
    way.push_back(Printable(service.name()));
  }
  if (!loop) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat("relays are in a loop: ", absl::StrJoin(way, " > "), " > ",
                                                    parts_.ancestry.name(), "; give one of them another --upstream"));
}

void Relay::SetConnected() {
  {
    absl::MutexLock lock(&mutex_);
    if (connected_) return;
    connected_ = reached_ = true;
    error_.clear();
    changed_at_ns_ = UnixNanos();
  }
  parts_.admission.log.Info("attending at the service above",
                            {{"upstream", upstream_.address}, {"depth", absl::StrCat(parts_.ancestry.depth())}});
}

void Relay::SetLost(const absl::Status& why) {
  if (stop_.stopped()) return;
  bool was_reached = false;
  {
    absl::MutexLock lock(&mutex_);
    was_reached = reached_;
    const bool is_news = std::exchange(connected_, false) || error_ != why.message();
    error_ = std::string(why.message());
    if (!is_news) return;
    changed_at_ns_ = UnixNanos();
  }
  parts_.admission.log.Warning(was_reached ? "the service above is lost; this relay serves what it has"
                                           : "the service above was not reached yet; this relay goes on trying",
                               {{"upstream", upstream_.address}, {"reason", why.ToString()}});
}

v1::RelayStatus Relay::Status() const {
  v1::RelayStatus status;
  status.set_upstream(upstream_.address);
  {
    absl::MutexLock lock(&mutex_);
    status.set_connected(connected_);
    status.set_error(error_);
    status.set_changed_at_ns(changed_at_ns_);
  }
  status.set_depth(parts_.ancestry.depth());
  status.set_received_bytes(received_.payload_bytes);
  status.set_received_tensor_bytes(received_.tensor_bytes);
  status.set_missing(received_.missing());
  status.set_sent_bytes(parts_.workers.totals().sent.wire_bytes);
  status.set_resident_bytes(ResidentBytes());
  status.set_threads(static_cast<uint32_t>(ThreadsOfProcess()));
  status.set_descriptors(static_cast<uint32_t>(OpenDescriptors()));
  return status;
}

}  // namespace refit
