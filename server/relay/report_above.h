// Reports to the service above how this relay is, and which workers are below it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "refit/v1/inspect.pb.h"
#include "server/relay/above.h"
#include "server/relay/news.h"
#include "server/server_parts.h"

namespace refit {

// A thread of its own reports after each change of the fleet, and every few seconds. A lost report has no consequences:
// the next one says all again. What it is given must outlive it; the connection's calls are cancelled before it is
// destroyed.
class ReportAbove {
 public:
  ReportAbove(const Above& above, ServerParts& parts, std::function<v1::RelayStatus()> status);
  ~ReportAbove();

  // This relay attends: what could not be reported before is reported now.
  void Wake() { news_->Tell(); }

 private:
  void Run();
  absl::Status Report(std::vector<v1::Worker> workers);

  const Above& above_;
  ServerParts& parts_;
  const std::function<v1::RelayStatus()> status_;

  const std::shared_ptr<News> news_ = std::make_shared<News>();
  const uint64_t observer_;
  std::thread thread_;  // last: it uses the members above
};

}  // namespace refit
