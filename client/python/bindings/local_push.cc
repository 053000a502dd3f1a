#include "client/python/bindings/local_push.h"

#include <cstdint>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "client/python/bindings/check_renamed.h"
#include "client/python/bindings/convert.h"
#include "client/python/bindings/interruptible.h"

namespace refit::python {
namespace {

// How much one thread converts before it checks whether to continue.
constexpr uint64_t kPieceBytes = uint64_t{64} << 20;

// Runs work that checks `is_cancelled` now and then, and ends by itself.
absl::Status Finish(absl::FunctionRef<absl::Status(const std::atomic<bool>& is_cancelled)> work) {
  absl::Status status;
  std::atomic<bool> is_cancelled{false};
  RunInterruptible([&] { status = work(is_cancelled); }, [&] { is_cancelled = true; });
  return status;
}

}  // namespace

LocalPush::LocalPush(std::shared_ptr<RefitServer> server, std::shared_ptr<const std::atomic<bool>> is_closed,
                     std::unique_ptr<VersionPush> push)
    : server_(std::move(server)), is_closed_(std::move(is_closed)), push_(std::move(push)) {}

std::unique_ptr<LocalPush> LocalPush::Open(const std::shared_ptr<RefitServer>& server,
                                           const std::shared_ptr<const std::atomic<bool>>& is_closed,
                                           const PublishOptions& options, std::vector<TensorSpec> native) {
  absl::StatusOr<std::unique_ptr<VersionPush>> push;
  CheckRenamed(Finish([&](const std::atomic<bool>& /*it is soon done*/) {
    push = server->OpenVersion(options, std::move(native));
    return push.status();
  }));
  return absl::WrapUnique(new LocalPush(server, is_closed, *std::move(push)));
}

pybind11::dict LocalPush::Summary() const { return ToDict(push_->summary()); }

void LocalPush::Append(const LentShards& shards, bool /*until_read*/) {
  CheckRunning();
  CheckRenamed(Finish([&](const std::atomic<bool>& is_cancelled) {
    MemoryProbe probe;
    for (const auto& [index, lent] : shards) {
      const absl::Span<const std::byte> bytes = lent.bytes();
      if (absl::Status status = CheckReadable(bytes, push_->shards()[index], probe); !status.ok()) return status;
      for (uint64_t begin = 0; begin < bytes.size(); begin += kPieceBytes) {
        if (is_cancelled) return absl::CancelledError("interrupted");
        if (absl::Status status = push_->Append(index, bytes.subspan(begin, kPieceBytes)); !status.ok()) return status;
      }
    }
    return absl::OkStatus();
  }));
}

pybind11::dict LocalPush::Commit() {
  CheckRunning();
  absl::StatusOr<VersionSummary> version;
  CheckRenamed(Finish([&](const std::atomic<bool>& /*it is soon done*/) {
    version = push_->Commit();
    return version.status();
  }));
  return ToDict(*version);
}

// A version that is committed after the service has ended would reach no worker.
void LocalPush::CheckRunning() const {
  if (!*is_closed_) return;
  const VersionSummary& version = push_->summary();
  Check(absl::FailedPreconditionError(absl::StrCat("version ", version.model, "/", version.version, ": the service at ",
                                                   server_->address(), " is closed")));
}

}  // namespace refit::python
