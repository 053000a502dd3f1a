#include "client/worker/routes.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/calls/unary_call.h"
#include "common/net/address.h"
#include "common/net/channel.h"
#include "common/net/name_lookup.h"
#include "refit/v1/inspect.grpc.pb.h"

namespace refit {
namespace {

using std::chrono::milliseconds;

// How long one address may take before the next one is tried, at first.
constexpr milliseconds kFirstPatience{2'000};
// Between rounds in which none answered.
constexpr milliseconds kPause{100};
constexpr milliseconds kLookUpAgainAfter{1'000};

bool MayBeSeveral(const std::vector<std::string>& listed) {
  return listed.size() > 1 || NameToLookUp(listed.front()).has_value();
}

std::string WithPort(const std::string& ip, const std::string& port) {
  return ip.find(':') == std::string::npos ? absl::StrCat(ip, ":", port) : absl::StrCat("[", ip, "]:", port);
}

}  // namespace

Routes::Routes(const ChannelOptions& options, std::shared_ptr<ActiveCalls> calls)
    : options_(options),
      calls_(std::move(calls)),
      listed_(SplitAddresses(options.address)),
      several_(MayBeSeveral(listed_)),
      patience_(kFirstPatience),
      candidates_(options.zone) {}

absl::StatusOr<std::unique_ptr<Routes>> Routes::Connect(const ChannelOptions& options,
                                                        std::shared_ptr<ActiveCalls> calls) {
  std::unique_ptr<Routes> routes = absl::WrapUnique(new Routes(options, std::move(calls)));
  if (absl::Status status = routes->ConnectInitially(); !status.ok()) return status;
  routes->options_.is_cancelled = [calls = routes->calls_] { return calls->cancelled().stopped(); };
  return routes;
}

absl::Status Routes::ConnectInitially() {
  if (!several_) {
    absl::StatusOr<std::shared_ptr<grpc::Channel>> channel = refit::Connect(options_);
    if (!channel.ok()) return channel.status();
    in_use_ = last_ = std::make_shared<const Route>(Route{options_.address, *std::move(channel)});
    return absl::OkStatus();
  }
  if (absl::Status status = CheckAddresses(options_.address); !status.ok()) return status;
  if (absl::Status status = StartGrpc(); !status.ok()) return status;
  const std::lock_guard lock(mutex_);
  const Clock::time_point deadline = Clock::now() + options_.connect_timeout;
  while (true) {
    const auto left = std::chrono::ceil<milliseconds>(deadline - Clock::now());
    const absl::StatusOr<std::shared_ptr<const Route>> route = Choose({}, std::clamp(left, kPause, patience_));
    if (route.ok()) in_use_ = last_ = *route;
    if (route.ok() || !absl::IsUnavailable(route.status())) return route.status();
    if (options_.is_cancelled && options_.is_cancelled()) {
      return absl::CancelledError(absl::StrCat("connection to ", options_.address, ": cancelled"));
    }
    if (Clock::now() >= deadline) {
      const double seconds = std::chrono::duration<double>(options_.connect_timeout).count();
      return absl::UnavailableError(
          absl::StrCat("none of the services answered within ", seconds, " s: ", route.status().message()));
    }
    calls_->cancelled().WaitFor(kPause);
  }
}

absl::StatusOr<std::shared_ptr<const Route>> Routes::Take(const Candidates::Addresses& except) {
  const std::lock_guard lock(mutex_);
  if (in_use_ != nullptr && except.count(in_use_->address) == 0) return in_use_;
  absl::StatusOr<std::shared_ptr<const Route>> route = Choose(except, several_ ? patience_ : options_.connect_timeout);
  if (route.ok() && in_use_ == nullptr) in_use_ = last_ = *route;
  return route;
}

std::shared_ptr<const Route> Routes::Present() {
  absl::StatusOr<std::shared_ptr<const Route>> route = Take();
  if (route.ok()) return *std::move(route);
  const std::lock_guard lock(mutex_);
  return last_;
}

void Routes::ReturnToNearest() {
  const std::lock_guard lock(mutex_);
  if (in_use_ == nullptr) return;
  for (const Candidate& candidate : candidates_.Nearer(in_use_->address, Clock::now())) {
    absl::StatusOr<std::shared_ptr<const Route>> route = Reach(candidate, kFirstPatience);
    if (!route.ok() || !candidates_.IsNearer(candidate.address, in_use_->address)) continue;
    in_use_ = last_ = *std::move(route);
    return;
  }
}

// Another call may have connected to the same address again already.
void Routes::Leave(const Route& route) {
  const std::lock_guard lock(mutex_);
  candidates_.LetRest(route.address, Clock::now());
  if (in_use_ != nullptr && in_use_->channel == route.channel) in_use_ = nullptr;
}

bool Routes::IsInUse(const Route& route) {
  const std::lock_guard lock(mutex_);
  return in_use_ != nullptr && in_use_->channel == route.channel;
}

absl::StatusOr<std::shared_ptr<const Route>> Routes::Choose(const Candidates::Addresses& except,
                                                            milliseconds patience) {
  if (candidates_.AllRest(Clock::now())) LookUpNames(patience);
  std::shared_ptr<const Route> farther;
  std::vector<std::string> reasons = not_found_;
  const std::vector<Candidate> candidates = candidates_.InOrder(except, Clock::now());
  for (const Candidate& candidate : candidates) {
    if (farther != nullptr && !candidates_.IsNearer(candidate.address, farther->address)) continue;
    if (farther != nullptr && candidates_.Rests(candidate.address, Clock::now())) continue;
    absl::StatusOr<std::shared_ptr<const Route>> route = Reach(candidate, patience);
    if (!route.ok() && !absl::IsUnavailable(route.status())) return route.status();
    if (!route.ok()) reasons.emplace_back(route.status().message());
    if (!route.ok()) continue;
    if (farther != nullptr && !candidates_.IsNearer(candidate.address, farther->address)) continue;
    farther = *std::move(route);
    if (candidates_.IsOfOwnZone(candidate.address)) break;
  }
  if (farther != nullptr) {
    patience_ = kFirstPatience;
    return farther;
  }
  if (reasons.empty()) return absl::NotFoundError(absl::StrCat("no other address in ", options_.address));
  patience_ = std::min(2 * patience_, std::max(kFirstPatience, options_.connect_timeout));
  return absl::UnavailableError(absl::StrJoin(reasons, "; "));
}

absl::StatusOr<std::shared_ptr<const Route>> Routes::Reach(const Candidate& candidate, milliseconds patience) {
  ChannelOptions options = options_;
  options.address = candidate.address;
  options.connect_timeout = std::min(options.connect_timeout, patience);
  if (options.security.tls() && options.security.server_name.empty()) {
    options.security.server_name = candidate.server_name;
  }
  absl::StatusOr<std::shared_ptr<grpc::Channel>> channel = ConnectOnce(options);
  if (!channel.ok()) {
    if (absl::IsUnavailable(channel.status())) candidates_.LetRest(candidate.address, Clock::now());
    return channel.status();
  }
  std::shared_ptr<const Route> route = std::make_shared<const Route>(Route{candidate.address, *std::move(channel)});
  if (several_ && candidates_.LacksZone(candidate.address)) AskZone(*route, patience);
  return route;
}

// A service that does not tell counts as one of another zone.
void Routes::AskZone(const Route& route, milliseconds patience) {
  const std::unique_ptr<v1::InspectService::Stub> stub = v1::InspectService::NewStub(route.channel);
  const absl::StatusOr<v1::GetServerInfoResponse> info =
      CallUnary(*stub, &v1::InspectService::Stub::GetServerInfo, v1::GetServerInfoRequest(), patience,
                absl::StrCat("zone of ", route.address), calls_);
  candidates_.SetZone(route.address, info.ok() ? info->zone() : "");
}

// Names may lead elsewhere than before. While a name is not found, it leads where it led.
void Routes::LookUpNames(milliseconds patience) {
  if (looked_up_at_.has_value() && Clock::now() < *looked_up_at_ + kLookUpAgainAfter) return;
  std::vector<Candidate> candidates;
  not_found_.clear();
  for (size_t place = 0; place < listed_.size(); ++place) {
    const std::optional<NameAndPort> name = NameToLookUp(listed_[place]);
    if (!name.has_value()) {
      candidates.push_back({listed_[place], "", place});
      continue;
    }
    const absl::StatusOr<std::vector<std::string>> found = LookUp(name->name, patience, options_.is_cancelled);
    if (found.ok()) {
      for (const std::string& ip : *found) candidates.push_back({WithPort(ip, name->port), name->name, place});
    } else {
      not_found_.emplace_back(found.status().message());
      std::copy_if(candidates_.all().begin(), candidates_.all().end(), std::back_inserter(candidates),
                   [place](const Candidate& known) { return known.place == place; });
    }
  }
  candidates_.Set(std::move(candidates));
  looked_up_at_ = Clock::now();
}

}  // namespace refit
