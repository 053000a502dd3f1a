#include "server/relay/report_above.h"

#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/calls/unary_call.h"
#include "refit/v1/relay.grpc.pb.h"

namespace refit {
namespace {

// Changes that come together are reported together; all the longer, the more workers a report holds.
constexpr std::chrono::milliseconds kShortestInterval{50};
constexpr std::chrono::microseconds kIntervalOfWorker{500};
constexpr std::chrono::seconds kLongestInterval{3};
constexpr std::chrono::seconds kTimeout{10};
// A few hundred bytes each.
constexpr size_t kWorkersInCall = 2000;

}  // namespace

ReportAbove::ReportAbove(const Above& above, ServerParts& parts, std::function<v1::RelayStatus()> status)
    : above_(above),
      parts_(parts),
      status_(std::move(status)),
      observer_(parts.workers.Observe([news = news_] { news->Tell(); })),
      thread_([this] { Run(); }) {}

ReportAbove::~ReportAbove() {
  parts_.workers.StopObserving(observer_);
  news_->End();
  thread_.join();
}

void ReportAbove::Run() {
  StopFlag& stop = above_.connection->calls->cancelled();
  size_t workers = 0;
  while (!stop.WaitFor(kShortestInterval + workers * kIntervalOfWorker)) {
    if (!news_->Await(kLongestInterval)) return;
    // Attend tells what is wrong with the way up, so an error here is no news.
    std::vector<v1::Worker> below = parts_.workers.List("");
    workers = below.size();
    const absl::Status status = Report(std::move(below));
    if (absl::IsResourceExhausted(status) || absl::IsPermissionDenied(status)) {
      parts_.admission.log.Warning("workers below cannot be reported above", {{"error", status.ToString()}});
    }
  }
}

absl::Status ReportAbove::Report(std::vector<v1::Worker> workers) {
  const std::unique_ptr<v1::RelayService::Stub> stub =
      v1::RelayService::NewStub(above_.connection->routes->Present()->channel);
  v1::ReportBelowRequest report;
  report.set_life(above_.life);
  *report.mutable_status() = status_();
  for (size_t next = 0; next < workers.size() || next == 0;) {
    report.clear_workers();
    for (; next < workers.size() && static_cast<size_t>(report.workers_size()) < kWorkersInCall; ++next) {
      *report.add_workers() = std::move(workers[next]);
    }
    report.set_more(next < workers.size());
    const auto answer = CallUnary(*stub, &v1::RelayService::Stub::ReportBelow, report, kTimeout,
                                  absl::StrCat("report to ", above_.connection->address), above_.connection->calls);
    if (!answer.ok() || workers.empty()) return answer.status();
  }
  return absl::OkStatus();
}

}  // namespace refit
