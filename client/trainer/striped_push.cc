#include "client/trainer/striped_push.h"

#include <algorithm>
#include <chrono>
#include <numeric>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "client/trainer/append_checks.h"
#include "client/trainer/push_lanes.h"
#include "common/net/status.h"
#include "common/tensor/buffer_pool.h"
#include "common/tensor/shard_names.h"
#include "common/tensor/stream_shares.h"
#include "refit/fork_guard.h"

namespace refit {
namespace {

// How much may wait to be sent at least.
constexpr uint64_t kLeastAheadBytes = 64 << 20;
constexpr uint64_t kIdleCopyBytes = 64 << 20;

// The parts of a tensor follow each other. Only if as much as a tensor may wait, all connections are busy.
uint64_t AheadBytes(const std::vector<TensorPart>& tensors) {
  uint64_t bytes = kLeastAheadBytes;
  for (const TensorPart& tensor : tensors) bytes = std::max(bytes, tensor.ByteSize());
  return bytes;
}

using Runs = std::vector<std::vector<StreamRun>>;

// What one connection declares: its runs, and of tensors without one an empty box. A 0-D tensor has no empty box: all
// connections declare it, and the service says which one sends it.
std::vector<TensorPart> DeclarationOf(size_t stream, absl::Span<const TensorPart> tensors, const Runs& runs) {
  std::vector<TensorPart> parts(tensors.begin(), tensors.end());
  for (size_t i = 0; i < parts.size(); ++i) {
    const auto own = absl::c_find_if(runs[i], [stream](const StreamRun& run) { return run.stream == stream; });
    if (own != runs[i].end()) {
      parts[i].box = own->box;
    } else if (!parts[i].box.sizes.empty()) {
      parts[i].box.sizes[0] = 0;
    }
  }
  return parts;
}

class StripedPush final : public VersionPush {
 public:
  // Objects that only the process that made them may destroy.
  struct Work {
    Work(const ServiceConnection& service, const PublishOptions& options, size_t streams)
        : entry(service.calls, [calls = calls] { calls->Cancel(); }),
          pushes(streams),
          lanes(streams, options.on_waiting) {}
    // What is being sent ends first.
    ~Work() { calls->Cancel(); }

    const std::shared_ptr<ActiveCalls> calls = std::make_shared<ActiveCalls>();
    const ActiveCalls::Entry entry;
    BufferPool copies{kIdleCopyBytes};
    std::vector<std::unique_ptr<VersionPush>> pushes;  // by connection
    VersionSummary committed;  // written by the first lane, which may still run when another one has failed
    PushLanes lanes;
  };

  StripedPush(OwnedByProcess<Work> work, std::string context, std::vector<TensorPart> tensors, Runs runs,
              std::shared_ptr<StreamTrial> trial)
      : work_(std::move(work)),
        context_(std::move(context)),
        tensors_(std::move(tensors)),
        runs_(std::move(runs)),
        ahead_bytes_(AheadBytes(tensors_)),
        trial_(std::move(trial)),
        pushed_(tensors_.size(), 0),
        summary_(work_->pushes.front()->summary()) {}

  const VersionSummary& summary() const override { return summary_; }
  const std::vector<TensorPart>& shards() const override { return tensors_; }
  bool digest_only(size_t) const override { return false; }
  bool unneeded(size_t index) const override {
    return absl::c_any_of(work_->pushes, [index](const auto& push) { return push->unneeded(index); });
  }
  absl::StatusOr<size_t> IndexOf(absl::string_view name) override;
  absl::Status Append(size_t index, absl::Span<const std::byte> bytes, std::shared_ptr<const void> owner) override;
  absl::Status Push(absl::string_view name, absl::Span<const std::byte> bytes,
                    std::shared_ptr<const void> owner) override;
  absl::StatusOr<VersionSummary> Commit() override;
  absl::Status Abort(absl::string_view reason) override;

 private:
  using Clock = std::chrono::steady_clock;

  void NoteRate();
  absl::Status CheckUsable() const;
  absl::Status End(const absl::Status& status);
  void Send(size_t stream, size_t index, absl::Span<const std::byte> bytes, std::shared_ptr<const void> owner);
  uint64_t missing_bytes(size_t index) const { return tensors_[index].ByteSize() - pushed_[index]; }

  const OwnedByProcess<Work> work_;
  const std::string context_;
  const std::vector<TensorPart> tensors_;
  const AppendChecks checks_{context_, tensors_};
  const Runs runs_;  // by tensor
  const uint64_t ahead_bytes_;
  const std::shared_ptr<StreamTrial> trial_;
  const Clock::time_point begin_ = Clock::now();
  std::vector<uint64_t> pushed_;
  ShardNames names_{tensors_};
  VersionSummary summary_;
  absl::Status over_;  // if not OK, nothing more can be pushed
  bool committed_ = false;
};

absl::Status StripedPush::CheckUsable() const {
  const absl::Status status = work_.get_deleter().guard.Check(context_);
  return status.ok() ? over_ : status;
}

// The first error is that of all later calls.
absl::Status StripedPush::End(const absl::Status& status) {
  if (over_.ok()) over_ = status;
  work_->lanes.Clear();  // lets go of what was borrowed
  return over_;
}

absl::StatusOr<size_t> StripedPush::IndexOf(absl::string_view name) {
  absl::StatusOr<size_t> index = names_.IndexOf(name);
  if (!index.ok()) return Annotate(index.status(), context_);
  return index;
}

void StripedPush::Send(size_t stream, size_t index, absl::Span<const std::byte> bytes,
                       std::shared_ptr<const void> owner) {
  VersionPush& push = *work_->pushes[stream];
  const uint64_t size = bytes.size();
  work_->lanes.Add(
      stream,
      [&push, index, bytes, owner = std::move(owner)]() mutable { return push.Append(index, bytes, std::move(owner)); },
      size);
}

absl::Status StripedPush::Append(size_t index, absl::Span<const std::byte> bytes, std::shared_ptr<const void> owner) {
  if (absl::Status status = CheckUsable(); !status.ok()) return status;
  absl::Status status = checks_.Append(index, bytes, [this](size_t i) { return missing_bytes(i); });
  if (!status.ok() || bytes.empty()) return status;
  if (status = work_->lanes.AwaitAtMost(ahead_bytes_); !status.ok()) return End(status);
  if (owner == nullptr) {
    absl::StatusOr<std::shared_ptr<Buffer>> copy = work_->copies.Get(bytes.size());
    if (!copy.ok()) return Annotate(copy.status(), context_);
    std::copy(bytes.begin(), bytes.end(), (*copy)->data());
    bytes = (*copy)->span();
    owner = *std::move(copy);
  }
  const uint64_t begin = std::exchange(pushed_[index], pushed_[index] + bytes.size());
  if (tensors_[index].box.sizes.empty()) {
    for (size_t stream = 0; stream < work_->pushes.size(); ++stream) Send(stream, index, bytes, owner);
    return absl::OkStatus();
  }
  for (const StreamRun& run : runs_[index]) {
    const uint64_t from = std::max(begin, run.begin);
    const uint64_t to = std::min(begin + bytes.size(), run.end);
    if (from < to) Send(run.stream, index, bytes.subspan(from - begin, to - from), owner);
  }
  return absl::OkStatus();
}

absl::Status StripedPush::Push(absl::string_view name, absl::Span<const std::byte> bytes,
                               std::shared_ptr<const void> owner) {
  const absl::StatusOr<size_t> index = IndexOf(name);
  if (!index.ok()) return index.status();
  if (absl::Status status = checks_.Push(*index, bytes); !status.ok()) return status;
  return Append(*index, bytes, std::move(owner));
}

void StripedPush::NoteRate() {
  if (trial_ == nullptr) return;
  const double bytes = std::accumulate(pushed_.begin(), pushed_.end(), 0.0);
  trial_->Note(work_->pushes.size(), bytes / std::chrono::duration<double>(Clock::now() - begin_).count());
}

absl::StatusOr<VersionSummary> StripedPush::Commit() {
  if (absl::Status status = CheckUsable(); !status.ok()) return status;
  absl::Status status =
      checks_.Commit([this](size_t i) { return missing_bytes(i); }, [this](size_t i) { return unneeded(i); });
  if (!status.ok()) return status;
  if (status = work_->lanes.AwaitAll(); !status.ok()) return End(status);
  NoteRate();
  for (size_t stream = 0; stream < work_->pushes.size(); ++stream) {
    work_->lanes.Add(stream, [&work = *work_, stream] {
      const absl::StatusOr<VersionSummary> committed = work.pushes[stream]->Commit();
      if (committed.ok() && stream == 0) work.committed = *committed;
      return committed.status();
    });
  }
  if (status = work_->lanes.AwaitAll(); !status.ok()) return End(status);
  summary_ = work_->committed;
  committed_ = true;
  over_ = absl::FailedPreconditionError(absl::StrCat(context_, ": the version is committed"));
  return summary_;
}

// One connection tells the service, which ends the others.
absl::Status StripedPush::Abort(absl::string_view reason) {
  if (absl::Status status = work_.get_deleter().guard.Check(context_); !status.ok()) return status;
  if (committed_) return over_;
  if (!over_.ok()) return absl::OkStatus();
  over_ = absl::FailedPreconditionError(absl::StrCat(context_, ": the version was aborted: ", reason));
  work_->lanes.Clear();
  work_->lanes.AwaitIdle();
  return work_->pushes.front()->Abort(reason);
}

}  // namespace

absl::StatusOr<std::unique_ptr<VersionPush>> OpenStripedPush(const ServiceConnection& service,
                                                             const std::shared_ptr<Connections>& connections,
                                                             const PublishOptions& options,
                                                             std::vector<TensorPart> tensors, size_t streams,
                                                             std::shared_ptr<StreamTrial> trial) {
  std::string context = absl::StrCat("push of ", options.model, "/", options.version, " to ", service.address);
  const Runs runs = DivideAmong(streams, tensors);
  auto owned = MakeOwnedByProcess<StripedPush::Work>(service, options, streams);
  StripedPush::Work& work = *owned;
  if (absl::Status status = work.lanes.Start(); !status.ok()) return Annotate(status, context);
  for (size_t stream = 0; stream < streams; ++stream) {
    PublishOptions rank = options;
    rank.rank = stream;
    rank.world = streams;
    rank.on_waiting = [&lanes = work.lanes](absl::Span<const uint32_t> missing) { lanes.Notice(missing); };
    work.lanes.Add(stream, [&work, &service, &tensors, &runs, connections, stream, rank] {
      absl::StatusOr<std::shared_ptr<grpc::Channel>> channel = connections->Get(stream);
      if (!channel.ok()) return channel.status();
      const ServiceConnection connection{service.address, service.transport, *std::move(channel), work.calls};
      absl::StatusOr<std::unique_ptr<VersionPush>> push =
          OpenWirePush(connection, rank, DeclarationOf(stream, tensors, runs));
      if (!push.ok()) return push.status();
      work.pushes[stream] = *std::move(push);
      return absl::OkStatus();
    });
  }
  if (absl::Status status = work.lanes.AwaitAll(); !status.ok()) return status;
  return std::make_unique<StripedPush>(std::move(owned), std::move(context), std::move(tensors), runs,
                                       std::move(trial));
}

}  // namespace refit
