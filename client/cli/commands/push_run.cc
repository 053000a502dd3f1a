#include "client/cli/commands/push_run.h"

#include <atomic>
#include <chrono>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/cli/commands/piece_reader.h"
#include "client/cli/run/stopwatch.h"
#include "client/cli/run/timer.h"

namespace refit::cli {
namespace {

// "waiting for ranks 1, 2, 5". The service names only a few ranks, and none if it waits for workers.
std::string WaitingText(absl::Span<const uint32_t> missing) {
  constexpr size_t kNamed = 16;
  if (missing.empty()) return "waiting for workers to take what was pushed";
  return absl::StrCat("waiting for ", missing.size() == 1 ? "rank " : "ranks ", absl::StrJoin(missing, ", "),
                      missing.size() >= kNamed ? ", ..." : "");
}

absl::Status PushPieces(VersionPush& push, std::shared_ptr<const ShardSource> source, const Interrupt& interrupt,
                        TransferProgress& progress, PushReport& report) {
  std::vector<bool> unneeded;
  for (size_t i = 0; i < source->shards().size(); ++i) unneeded.push_back(push.unneeded(i));
  PieceReader reader(std::move(source), std::move(unneeded));
  Stopwatch watch;
  while (std::optional<Piece> piece = reader.Next()) {
    if (interrupt.raised()) return absl::CancelledError("interrupted");
    const absl::Status status =
        watch.Time([&] { return push.Append(piece->shard, piece->bytes, std::move(piece->owner)); });
    if (!status.ok()) return status;
    progress.Add(piece->bytes.size());
  }
  const absl::Status read = reader.Finish();
  report.read_seconds = reader.seconds();
  report.push_seconds = watch.seconds();
  return read;
}

class PushRun {
 public:
  PushRun(PublishOptions options, Publisher& publisher, std::shared_ptr<const ShardSource> source,
          TransferProgress& progress, Interrupt& interrupt, PushReport& report)
      : options_(std::move(options)),
        publisher_(publisher),
        source_(std::move(source)),
        progress_(progress),
        interrupt_(interrupt),
        report_(report) {
    options_.on_waiting = [this](absl::Span<const uint32_t> missing) { OnWaiting(missing); };
  }

  absl::Status Run() {
    interrupt_.SetReaction([this] { OnInterrupt(); });
    const absl::Status status = OpenSendCommit();
    // An interrupt may come too late, when the commit has succeeded. It is reported all the same.
    interrupt_.SetReaction(nullptr);
    late_.reset();
    return interrupt_.Explain(
        status, committing_ ? absl::StrCat("`refit versions` says whether version ", options_.version, " is committed")
                            : absl::StrCat("version ", options_.version, " is aborted"));
  }

 private:
  absl::Status OpenSendCommit() {
    absl::StatusOr<std::unique_ptr<VersionPush>> push = publisher_.OpenShards(options_, source_->shards());
    if (!push.ok()) return push.status();
    Measure(*source_, **push, report_);
    progress_.Start(report_.shard_bytes, WhatIsPushed(report_));
    absl::Status status = PushPieces(**push, source_, interrupt_, progress_, report_);
    if (status.ok() && interrupt_.raised()) status = absl::CancelledError("interrupted");
    if (!status.ok()) {
      (void)(*push)->Abort(interrupt_.raised() ? kInterrupted : std::string(status.message()));
      return status;
    }
    progress_.Finish();
    return Commit(**push);
  }

  absl::Status Commit(VersionPush& push) {
    Stopwatch watch;
    committing_ = true;
    absl::StatusOr<VersionSummary> committed = watch.Time([&] { return push.Commit(); });
    if (!committed.ok()) return committed.status();
    if (waited_) progress_.Finish();
    report_.version = *std::move(committed);
    report_.commit_seconds = watch.seconds();
    return absl::OkStatus();
  }

  // Aborts the version with a reason as soon as the push notices. The program must end even if the service does not
  // answer, or other ranks never join.
  void OnInterrupt() {
    late_.emplace(kPatience, [this] { publisher_.Cancel(); });
    if (waited_) (void)publisher_.Abort(options_.model, options_.version, kInterrupted);
  }

  void OnWaiting(absl::Span<const uint32_t> missing) {
    progress_.Say(WaitingText(missing));
    if (!waited_.exchange(true) && interrupt_.raised()) {
      (void)publisher_.Abort(options_.model, options_.version, kInterrupted);
    }
  }

  static constexpr char kInterrupted[] = "interrupted at the command line";
  static constexpr std::chrono::seconds kPatience{1};

  PublishOptions options_;
  Publisher& publisher_;
  std::shared_ptr<const ShardSource> source_;
  TransferProgress& progress_;
  Interrupt& interrupt_;
  PushReport& report_;
  std::atomic<bool> waited_{false};
  bool committing_ = false;
  std::optional<Timer> late_;
};

}  // namespace

absl::Status RunPush(PublishOptions options, Publisher& publisher, std::shared_ptr<const ShardSource> source,
                     TransferProgress& progress, Interrupt& interrupt, PushReport& report) {
  return PushRun(std::move(options), publisher, std::move(source), progress, interrupt, report).Run();
}

}  // namespace refit::cli
