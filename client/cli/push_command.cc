// `refit push`: native tensors become a version.
#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cli/bounded_queue.h"
#include "client/cli/format.h"
#include "client/cli/interrupt.h"
#include "client/cli/json.h"
#include "client/cli/native_options.h"
#include "client/cli/options.h"
#include "client/cli/progress.h"
#include "client/cli/stopwatch.h"
#include "client/cli/table.h"
#include "client/inspector.h"
#include "client/publisher.h"
#include "common/tensor/buffer.h"

namespace refit::cli {
namespace {

// Native bytes are read, and handed to the publisher, in pieces of this size: a multiple of every element size.
constexpr uint64_t kPieceBytes = 8 << 20;
// Pieces that may be made ahead of the wire, and the memory for them that is kept warm.
constexpr size_t kPiecesAhead = 2;
constexpr uint64_t kPoolBytes = 8 * kPieceBytes;

struct PushFlags {
  CommonOptions common;
  NativeOptions native;
  uint64_t version = 0;
  std::string publisher;
};

// A run of one native tensor's bytes, and what keeps them alive.
struct Piece {
  size_t tensor = 0;
  absl::Span<const std::byte> bytes;
  std::shared_ptr<const void> owner;
};

// Reads all tensors of a source piece by piece, on a thread of its own, a little ahead of whoever takes them.
class PieceReader {
 public:
  explicit PieceReader(std::shared_ptr<const NativeSource> source)
      : source_(std::move(source)), thread_([this] { Run(); }) {}
  ~PieceReader() {
    queue_.Close();
    if (thread_.joinable()) thread_.join();
  }
  PieceReader(const PieceReader&) = delete;
  PieceReader& operator=(const PieceReader&) = delete;

  // nullopt at the end: then `Finish` says whether it was a good one.
  std::optional<Piece> Next() { return queue_.Pop(); }

  // After the last piece.
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
    for (size_t i = 0; i < source_->tensors().size(); ++i) {
      const uint64_t size = source_->tensors()[i].ByteSize();
      for (uint64_t offset = 0; offset < size; offset += kPieceBytes) {
        absl::StatusOr<Piece> piece =
            watch_.Time([&] { return Read(i, offset, std::min(kPieceBytes, size - offset)); });
        if (!piece.ok()) return piece.status();
        if (!queue_.Push(*std::move(piece))) return absl::OkStatus();
      }
    }
    return absl::OkStatus();
  }

  absl::StatusOr<Piece> Read(size_t tensor, uint64_t offset, uint64_t size) {
    if (source_->is_resident()) return Piece{tensor, source_->Read(tensor, offset, size, {}), source_};
    // Always the same size, so that the pool has one that is warm.
    absl::StatusOr<std::shared_ptr<Buffer>> buffer = pool_.Get(kPieceBytes);
    if (!buffer.ok()) return buffer.status();
    return Piece{tensor, source_->Read(tensor, offset, size, (*buffer)->span().first(size)), *buffer};
  }

  std::shared_ptr<const NativeSource> source_;
  BufferPool pool_{kPoolBytes};
  BoundedQueue<Piece> queue_{kPiecesAhead};
  Stopwatch watch_;
  absl::Status status_;
  std::thread thread_;
};

// The number that follows the largest one known.
absl::StatusOr<uint64_t> NextVersion(const CommonOptions& common) {
  absl::StatusOr<std::unique_ptr<Inspector>> inspector = Inspector::Connect(common.Channel());
  if (!inspector.ok()) return inspector.status();
  absl::StatusOr<v1::ListVersionsResponse> known = (*inspector)->Versions(common.model);
  if (!known.ok()) return known.status();
  uint64_t next = 1;
  for (const v1::VersionSummary& version : known->versions()) next = std::max(next, version.version() + 1);
  return next;
}

struct PushReport {
  v1::VersionSummary version;
  size_t native_tensors = 0;
  uint64_t native_bytes = 0;
  bool resident = false;
  double read_seconds = 0;
  double push_seconds = 0;
  double commit_seconds = 0;
  double total_seconds = 0;
};

void PrintReport(const PushReport& report) {
  Table table({{"phase"}, {"bytes", Align::kRight}, {"seconds", Align::kRight}, {"rate", Align::kRight}});
  const auto row = [&](const char* phase, uint64_t bytes, double seconds) {
    table.AddRow(
        {phase, bytes == 0 ? "-" : FormatBytes(bytes), absl::StrFormat("%.3f", seconds), FormatRate(bytes, seconds)});
  };
  if (!report.resident) row("generate", report.native_bytes, report.read_seconds);
  row("push", report.native_bytes, report.push_seconds);
  row("commit", 0, report.commit_seconds);
  row("total", report.native_bytes, report.total_seconds);
  table.Print(stdout);
  const v1::VersionSummary& version = report.version;
  const std::string text = absl::StrCat("Committed version ", version.version(), " of model \"", version.model(),
                                        "\": ", FormatCount(report.native_tensors, "native tensor"), " -> ",
                                        FormatCount(version.tensors(), "HF tensor"), ", ", FormatBytes(version.bytes()),
                                        " in ", FormatDuration(report.total_seconds));
  std::printf("%s\n", text.c_str());
}

nlohmann::ordered_json ReportJson(const PushReport& report) {
  return {{"version", ToJson(report.version)},
          {"native_tensors", report.native_tensors},
          {"native_bytes", report.native_bytes},
          {"seconds",
           {{"read", report.read_seconds},
            {"push", report.push_seconds},
            {"commit", report.commit_seconds},
            {"total", report.total_seconds}}}};
}

absl::Status PushPieces(VersionPush& push, std::shared_ptr<const NativeSource> source, const Interrupt& interrupt,
                        TransferProgress& progress, PushReport& report) {
  PieceReader reader(std::move(source));
  Stopwatch watch;
  while (std::optional<Piece> piece = reader.Next()) {
    if (interrupt.raised()) return absl::CancelledError("interrupted");
    const absl::Status status =
        watch.Time([&] { return push.Append(piece->tensor, piece->bytes, std::move(piece->owner)); });
    if (!status.ok()) return status;
    progress.Add(piece->bytes.size());
  }
  const absl::Status read = reader.Finish();
  report.read_seconds = reader.seconds();
  report.push_seconds = watch.seconds();
  return read;
}

absl::Status PushVersion(const PushFlags& flags, std::shared_ptr<const NativeSource> source, const Interrupt& interrupt,
                         PushReport& report) {
  const auto begin = std::chrono::steady_clock::now();
  PublishOptions options;
  options.model = flags.common.model;
  options.version = flags.version;
  options.dtype = flags.native.dtype;
  options.exclude_key_regex = flags.native.exclude_key_regex;
  options.publisher = flags.publisher;
  if (options.version == 0) {
    const absl::StatusOr<uint64_t> next = NextVersion(flags.common);
    if (!next.ok()) return next.status();
    options.version = *next;
  }
  absl::StatusOr<std::unique_ptr<Publisher>> publisher = Publisher::Connect(flags.common.Channel());
  if (!publisher.ok()) return publisher.status();
  absl::StatusOr<std::unique_ptr<VersionPush>> push = (*publisher)->Open(options, source->tensors());
  if (!push.ok()) return push.status();

  for (const TensorSpec& tensor : source->tensors()) report.native_bytes += tensor.ByteSize();
  report.native_tensors = source->tensors().size();
  report.resident = source->is_resident();
  TransferProgress progress(ChooseProgressStyle(flags.common), absl::StrCat("push version ", options.version));
  progress.Start(report.native_bytes, absl::StrCat(FormatCount(report.native_tensors, "native tensor"), ", ",
                                                   FormatBytes(report.native_bytes)));
  absl::Status status = PushPieces(**push, std::move(source), interrupt, progress, report);
  if (status.ok() && interrupt.raised()) status = absl::CancelledError("interrupted");
  if (!status.ok()) {
    (void)(*push)->Abort(interrupt.raised() ? "interrupted at the command line" : std::string(status.message()));
    return interrupt.Explain(status, absl::StrCat("version ", options.version, " is aborted"));
  }
  progress.Finish();
  Stopwatch watch;
  absl::StatusOr<v1::VersionSummary> committed = watch.Time([&] { return (*push)->Commit(); });
  if (!committed.ok()) return committed.status();
  report.version = *std::move(committed);
  report.commit_seconds = watch.seconds();
  report.total_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return absl::OkStatus();
}

absl::Status RunPush(const PushFlags& flags) {
  const Interrupt interrupt;
  absl::StatusOr<std::shared_ptr<const NativeSource>> source = flags.native.Open();
  if (!source.ok()) return source.status();
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
  CLI::App* command = AddCommand(app, invocation, "push", "Push native tensors; the service converts them",
                                 "The version becomes visible as a whole once all bytes came, or not at all: an error "
                                 "or Ctrl-C aborts it.\n\n"
                                 "Examples:\n"
                                 "  refit push --version 7 checkpoint/ --dtype BF16\n"
                                 "  refit push native.safetensors --exclude-key-regex '.*_extra_state.*'\n"
                                 "  refit push --synthetic gemma4_26b_a4b --layers 2 --seed 7\n",
                                 [flags] { return RunPush(*flags); });
  AddNativeOptions(command, flags->native, "NATIVE", "--synthetic");
  command->add_option("-v,--version", flags->version, "Number of the version (default: one more than the newest)")
      ->check(AtLeast(1))
      ->type_name("N");
  command->add_option("--publisher", flags->publisher, "Name of this trainer, shown in logs and status")
      ->type_name("NAME");
  AddModelOption(command, flags->common);
  AddServerOptions(command, flags->common);
  command->parse_complete_callback([flags] {
    if (!flags->native.given()) throw CLI::RequiredError("NATIVE (a file or folder) or --synthetic");
  });
}

}  // namespace refit::cli
