// `refit push`: sends native tensors as a new version.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/cli/commands/bounded_queue.h"
#include "client/cli/commands/tensor_file.h"
#include "client/cli/options/native_options.h"
#include "client/cli/options/options.h"
#include "client/cli/options/shard_options.h"
#include "client/cli/run/interrupt.h"
#include "client/cli/run/stopwatch.h"
#include "client/cli/run/timer.h"
#include "client/cli/terminal/format.h"
#include "client/cli/terminal/json.h"
#include "client/cli/terminal/progress.h"
#include "client/cli/terminal/table.h"
#include "client/native/shard_source.h"
#include "common/net/status.h"
#include "refit/buffer.h"
#include "refit/memory_probe.h"
#include "refit/publisher.h"

namespace refit::cli {
namespace {

// Native bytes are read and sent in pieces of this size. It is a multiple of every element size.
constexpr uint64_t kPieceBytes = 2 << 20;
// How many pieces may be read ahead, and how many idle buffers the pool keeps.
constexpr size_t kPiecesAhead = 2;
constexpr uint64_t kPoolBytes = 8 * kPieceBytes;

constexpr char kNothingPushed[] = "nothing was pushed";

struct PushFlags {
  CommonOptions common;
  NativeOptions native;
  RankOptions rank;
  uint64_t version = 0;
  std::string publisher;
  bool hold_installs = false;
  uint64_t epoch = 0;
  bool allow_empty = false;
};

// A run of bytes of one shard, and the owner of their memory.
struct Piece {
  size_t shard = 0;
  absl::Span<const std::byte> bytes;
  std::shared_ptr<const void> owner;
};

// Reads the needed shards of a source piece by piece. It has a thread of its own and reads a few pieces ahead.
class PieceReader {
 public:
  PieceReader(std::shared_ptr<const ShardSource> source, std::vector<bool> unneeded)
      : source_(std::move(source)), unneeded_(std::move(unneeded)), thread_([this] { Run(); }) {}
  ~PieceReader() {
    queue_.Close();
    if (thread_.joinable()) thread_.join();
  }
  PieceReader(const PieceReader&) = delete;
  PieceReader& operator=(const PieceReader&) = delete;

  // nullopt at the end. Then `Finish` says whether all pieces were read.
  std::optional<Piece> Next() { return queue_.Pop(); }

  // Call it after the last piece.
  absl::Status Finish() {
    thread_.join();
    return status_;
  }
  double seconds() const { return watch_.seconds(); }

 private:
  void Run() {
    status_ = ReadAll();
    queue_.Close();
  }

  absl::Status ReadAll() {
    for (size_t i = 0; i < source_->shards().size(); ++i) {
      if (unneeded_[i]) continue;
      const uint64_t size = source_->shards()[i].ByteSize();
      for (uint64_t offset = 0; offset < size; offset += kPieceBytes) {
        absl::StatusOr<Piece> piece =
            watch_.Time([&] { return Read(i, offset, std::min(kPieceBytes, size - offset)); });
        if (!piece.ok()) return piece.status();
        if (!queue_.Push(*std::move(piece))) return absl::OkStatus();
      }
    }
    return absl::OkStatus();
  }

  absl::StatusOr<Piece> Read(size_t shard, uint64_t offset, uint64_t size) {
    if (source_->is_resident(shard)) {
      Piece piece{shard, source_->Read(shard, offset, size, {}), source_};
      // The piece may be a view of a mapped file. If the file was truncated, reading it would raise SIGBUS and end the
      // program.
      absl::Status status = MemoryProbe().CheckReadable(piece.bytes);
      if (!status.ok()) return Annotate(status, absl::StrCat("tensor ", source_->shards()[shard].ToString()));
      return piece;
    }
    // Buffers are always the same size, so that the pool can reuse one.
    absl::StatusOr<std::shared_ptr<Buffer>> buffer = pool_.Get(kPieceBytes);
    if (!buffer.ok()) return buffer.status();
    Piece piece{shard, source_->Read(shard, offset, size, (*buffer)->span().first(size)), *buffer};
    if (piece.bytes.size() == size) return piece;
    return absl::InvalidArgumentError(
        absl::StrCat("tensor ", source_->shards()[shard].ToString(), ": its file was truncated while it was read"));
  }

  std::shared_ptr<const ShardSource> source_;
  const std::vector<bool> unneeded_;
  BufferPool pool_{kPoolBytes};
  BoundedQueue<Piece> queue_{kPiecesAhead};
  Stopwatch watch_;
  absl::Status status_;
  std::thread thread_;
};

struct PushReport {
  v1::VersionSummary version;
  RankOptions rank;
  size_t native_tensors = 0;  // native tensors that some output tensor needs
  size_t excluded = 0;        // native tensors that are excluded
  size_t shards = 0;          // shards that are not empty
  uint64_t shard_bytes = 0;   // bytes of this rank's shards; of all tensors if the push is not sharded
  uint64_t unsent_bytes = 0;  // part of shard_bytes that another rank sends
  bool synthetic = false;
  bool resident = false;
  double read_seconds = 0;
  double push_seconds = 0;
  double commit_seconds = 0;
  double total_seconds = 0;
};

void Measure(const ShardSource& source, const VersionPush& push, PushReport& report) {
  report.resident = true;
  for (size_t i = 0; i < source.shards().size(); ++i) {
    if (push.unneeded(i)) {
      ++report.excluded;
      continue;
    }
    ++report.native_tensors;
    const uint64_t bytes = source.shards()[i].ByteSize();
    report.shard_bytes += bytes;
    if (push.digest_only(i)) report.unsent_bytes += bytes;
    if (bytes == 0) continue;
    ++report.shards;
    report.resident = report.resident && source.is_resident(i);
  }
}

// "159 native tensors, 47.8 MB", or "rank 3 of 8, 120 shards, 5.9 MB".
std::string WhatIsPushed(const PushReport& report) {
  return absl::StrCat(report.rank.given() ? absl::StrCat("rank ", report.rank.rank, " of ", report.rank.mesh.world,
                                                         ", ", FormatCount(report.shards, "shard"))
                                          : FormatCount(report.native_tensors, "native tensor"),
                      ", ", FormatBytes(report.shard_bytes),
                      report.excluded > 0 ? absl::StrCat(" (", report.excluded, " excluded)") : "");
}

std::string RankText(const PushReport& report) {
  if (!report.rank.given()) return "";
  std::string text = absl::StrCat("\nPushed as ", WhatIsPushed(report));
  if (report.unsent_bytes > 0) {
    absl::StrAppend(&text, "; ", FormatBytes(report.unsent_bytes), " not sent, because another rank sends the same");
  }
  return text;
}

void PrintReport(const PushReport& report) {
  Table table({{"phase"}, {"bytes", Align::kRight}, {"seconds", Align::kRight}, {"rate", Align::kRight}});
  const auto row = [&](const char* phase, uint64_t bytes, double seconds) {
    table.AddRow(
        {phase, bytes == 0 ? "-" : FormatBytes(bytes), absl::StrFormat("%.3f", seconds), FormatRate(bytes, seconds)});
  };
  if (!report.resident) row(report.synthetic ? "generate" : "cut", report.shard_bytes, report.read_seconds);
  row("push", report.shard_bytes, report.push_seconds);
  row("commit", 0, report.commit_seconds);
  row("total", report.shard_bytes, report.total_seconds);
  table.Print(stdout);
  const v1::VersionSummary& version = report.version;
  const std::string text = absl::StrCat("Committed version ", version.version(), " of model \"", version.model(),
                                        "\": ", FormatCount(report.native_tensors, "native tensor"), " -> ",
                                        FormatCount(version.tensors(), "HF tensor"), ", ", FormatBytes(version.bytes()),
                                        " in ", FormatDuration(report.total_seconds), RankText(report));
  std::printf("%s\n", text.c_str());
}

nlohmann::ordered_json ReportJson(const PushReport& report) {
  nlohmann::ordered_json json = {{"version", ToJson(report.version)},
                                 {"native_tensors", report.native_tensors},
                                 {"excluded_tensors", report.excluded},
                                 {"native_bytes", report.shard_bytes}};
  if (report.rank.given()) {
    json["rank"] = report.rank.rank;
    json["world"] = report.rank.mesh.world;
    json["shards"] = report.shards;
    json["digest_only_bytes"] = report.unsent_bytes;
  }
  json["seconds"] = {{"read", report.read_seconds},
                     {"push", report.push_seconds},
                     {"commit", report.commit_seconds},
                     {"total", report.total_seconds}};
  return json;
}

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

absl::StatusOr<PublishOptions> OptionsOf(const PushFlags& flags, Publisher& publisher) {
  PublishOptions options;
  options.model = flags.common.model;
  options.version = flags.version;
  options.adapter = flags.native.adapter;
  options.dtype = flags.native.dtype;
  options.exclude_key_regex = flags.native.exclude_key_regex;
  options.keep_dtype_regex = flags.native.keep_dtype_regex;
  options.publisher = flags.publisher;
  options.hold_installs = flags.hold_installs;
  options.trainer_epoch = flags.epoch;
  options.allow_empty = flags.allow_empty;
  if (flags.rank.given()) {
    options.rank = flags.rank.rank;
    options.world = flags.rank.mesh.world;
  }
  if (options.version == 0) {
    const absl::StatusOr<Publisher::LastRun> last = publisher.AskLastRun(flags.common.model);
    if (!last.ok()) return last.status();
    options.version = last->version + 1;
  }
  return options;
}

// One push, from opening the version to committing it.
class Push {
 public:
  Push(PublishOptions options, Publisher& publisher, std::shared_ptr<const ShardSource> source,
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
    absl::StatusOr<v1::VersionSummary> committed = watch.Time([&] { return push.Commit(); });
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

absl::Status PushVersion(const PushFlags& flags, std::shared_ptr<const ShardSource> source, Interrupt& interrupt,
                         PushReport& report) {
  const auto begin = std::chrono::steady_clock::now();
  report.rank = flags.rank;
  report.synthetic = flags.native.path.empty();
  absl::StatusOr<std::unique_ptr<Publisher>> publisher = Publisher::Connect(flags.common.Channel(interrupt));
  if (!publisher.ok()) return interrupt.Explain(publisher.status(), kNothingPushed);
  interrupt.SetReaction([&] { (*publisher)->Cancel(); });
  absl::StatusOr<PublishOptions> options = OptionsOf(flags, **publisher);
  interrupt.SetReaction(nullptr);
  if (!options.ok()) return interrupt.Explain(options.status(), kNothingPushed);
  TransferProgress progress(ChooseProgressStyle(flags.common), absl::StrCat("push version ", options->version));
  const absl::Status status =
      Push(*std::move(options), **publisher, std::move(source), progress, interrupt, report).Run();
  report.total_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return status;
}

absl::Status RunPush(const PushFlags& flags) {
  Interrupt interrupt;
  absl::StatusOr<std::shared_ptr<const ShardSource>> source = OpenShards(flags.native, flags.rank);
  if (!source.ok()) return source.status();
  if (!flags.common.quiet) NoteOfFiles((*source)->note());
  PushReport report;
  const absl::Status status = PushVersion(flags, *std::move(source), interrupt, report);
  if (!status.ok()) return status;
  if (flags.common.json) {
    PrintJson(ReportJson(report));
  } else if (!flags.common.quiet) {
    PrintReport(report);
  }
  return absl::OkStatus();
}

}  // namespace

void AddPushCommand(CLI::App& app, Invocation& invocation) {
  const auto flags = std::make_shared<PushFlags>();
  CLI::App* command =
      AddCommand(app, invocation, "push", "Push native tensors; the service converts them",
                 "The version becomes visible as a whole once all bytes came, or not at all: an error "
                 "or Ctrl-C aborts it.\n\n"
                 "A sharded trainer runs one push a rank, in any order, with the same --version and "
                 "--world: each joins the version and sends its part, and all commit together. The mesh "
                 "options say which part to cut from a source of whole tensors; without them a rank has "
                 "all. What several ranks have alike is sent once. A file whose metadata says which "
                 "shards it holds (\"refit.shards\") is pushed as it is, and so is a rank's file of "
                 "torch.distributed.checkpoint with the other ranks' beside it.\n\n"
                 "Examples:\n"
                 "  refit push --version 7 checkpoint/ --dtype BF16\n"
                 "  refit push native.safetensors --exclude-key-regex '.*_extra_state.*'\n"
                 "  refit push --adapter identity hf_checkpoint/      # already Hugging Face's layout\n"
                 "  refit push --synthetic gemma4_26b_a4b --layers 2 --seed 7\n"
                 "  refit push -v 7 --rank 3 --world 8 --ep-size 8 --fsdp-size 8 checkpoint/\n"
                 "  refit push -v 7 --rank 3 --world 8 rank3.safetensors\n",
                 [flags] { return RunPush(*flags); });
  AddNativeOptions(command, flags->native, "NATIVE", "--synthetic");
  command->add_option("-v,--version", flags->version, "Number of the version (default: one more than the newest)")
      ->check(AtLeast(1))
      ->type_name("N");
  command->add_option("--publisher", flags->publisher, "Name of this trainer, shown in logs and status")
      ->type_name("NAME");
  command->add_flag("--hold-installs", flags->hold_installs,
                    "Workers stage the version, and install it when `refit release` says so");
  command
      ->add_option("--epoch", flags->epoch,
                   "Which run of the trainer this is, such as its restart count: aborts the version that a run with "
                   "a smaller one still has open, and is refused after a run with a larger one; numbers may start anew "
                   "with it")
      ->check(AtLeast(0))
      ->type_name("N");
  command->add_flag("--allow-empty", flags->allow_empty,
                    "A version without tensors, or with only empty ones, is meant; it is refused otherwise");
  AddRankOptions(command, flags->rank);
  AddModelOption(command, flags->common);
  AddServerOptions(command, flags->common);
  command->parse_complete_callback([command, flags] {
    if (!flags->native.given()) throw CLI::RequiredError("NATIVE (a file or folder) or --synthetic");
    CheckRankOptions(command, flags->rank, flags->version > 0);
  });
}

}  // namespace refit::cli
