#include "client/worker/subscriber_stream.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace refit {
namespace {

// How often a stream that stands looks for a nearer service.
constexpr std::chrono::milliseconds kGlance = std::chrono::seconds(2);

}  // namespace

absl::StatusOr<std::optional<grpc::ByteBuffer>> SubscriberStream::ReadWhileInUse(std::chrono::milliseconds timeout) {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point deadline = Clock::now() + timeout;
  while (true) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now());
    const bool has_news = reader_->AwaitNews(std::clamp(left, std::chrono::milliseconds::zero(), kGlance));
    if (!has_news) connection_.routes->ReturnToNearest();
    const bool is_in_use = connection_.routes->IsInUse(*route_);
    if (has_news) {
      absl::StatusOr<std::optional<grpc::ByteBuffer>> read = reader_->Read(std::chrono::milliseconds::zero());
      // An end has a reason of its own, which says more.
      if (is_in_use || !read.ok() || !read->has_value()) return read;
    }
    if (!is_in_use) return absl::UnavailableError("another connection is to be used");
    if (left <= std::chrono::milliseconds::zero()) {
      return absl::DeadlineExceededError(absl::StrCat("nothing came for ", timeout.count(), " ms"));
    }
  }
}

}  // namespace refit
