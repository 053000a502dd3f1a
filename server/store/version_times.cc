#include "server/store/version_times.h"

#include <algorithm>

#include "common/net/wall_clock.h"

namespace refit {
namespace {

uint64_t NsBetween(VersionTimes::Clock::time_point begin, VersionTimes::Clock::time_point end) {
  return std::chrono::nanoseconds(std::max(end - begin, VersionTimes::Clock::duration::zero())).count();
}

}  // namespace

VersionTimes::VersionTimes() : opened_at_ns_(UnixNanos()), opened_at_(Clock::now()) {}

void VersionTimes::Assembled() {
  assembled_at_ = Clock::now();
  received_at_ = *assembled_at_;
}

void VersionTimes::Converted(Clock::time_point begin) {
  const Clock::time_point now = Clock::now();
  received_at_ = now;
  convert_ns_ += NsBetween(begin, now);
}

void VersionTimes::Fill(v1::VersionSummary& summary) const {
  summary.set_opened_at_ns(opened_at_ns_);
  summary.set_elapsed_ns(NsBetween(opened_at_, closed_at_.value_or(Clock::now())));
  if (closed_at_.has_value()) summary.set_closed_at_ns(opened_at_ns_ + static_cast<int64_t>(summary.elapsed_ns()));
  if (!assembled_at_.has_value()) return;
  summary.set_open_ns(NsBetween(opened_at_, *assembled_at_));
  summary.set_receive_ns(NsBetween(*assembled_at_, received_at_));
  summary.set_convert_ns(convert_ns_);
}

}  // namespace refit
