// `refit pull`: receives and verifies a version, and writes it to a file if asked to.
#include <algorithm>
#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/cli/commands/base_file.h"
#include "client/cli/commands/pull_report.h"
#include "client/cli/commands/staging_sink.h"
#include "client/cli/commands/tensor_file.h"
#include "client/cli/commands/torch_work.h"
#include "client/cli/options/native_options.h"
#include "client/cli/options/options.h"
#include "client/cli/options/shard_options.h"
#include "client/cli/options/stream_options.h"
#include "client/cli/run/interrupt.h"
#include "client/cli/run/timer.h"
#include "client/cli/terminal/end_at_once.h"
#include "client/cli/terminal/format.h"
#include "client/cli/terminal/json.h"
#include "client/cli/terminal/progress.h"
#include "refit/subscriber.h"

namespace refit::cli {
namespace {

struct PullFlags {
  CommonOptions common;
  NativeOptions native;
  PartOptions part;
  BaseFile base;
  std::string version = "latest";
  std::optional<uint64_t> epoch;
  double wait_seconds = 0;
  std::string out;
  std::string filter;
  std::string worker;
  uint32_t streams = 1;
};

double SecondsSince(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// Whether `version` ends the wait for `wanted` (nullopt: any committed version). An aborted version may be pushed
// again, so it does not end the wait. A retired one will not come back: the wait ends, and the pull reports it.
bool IsAwaited(const VersionSummary& version, std::optional<uint64_t> wanted, std::optional<uint64_t> epoch) {
  if (epoch.has_value() && version.trainer_epoch != *epoch) return false;
  if (!wanted) return version.state == VersionState::kCommitted;
  return version.version == *wanted && version.state != VersionState::kAborted;
}

absl::Status WaitForVersion(const PullFlags& flags, Subscriber& subscriber, Interrupt& interrupt) {
  const std::optional<uint64_t> wanted = ParseVersion(flags.version);
  const Timer timer(std::chrono::duration<double>(flags.wait_seconds), [&] { subscriber.Cancel(); });
  interrupt.SetReaction([&] { subscriber.Cancel(); });
  WatchOptions watch;
  watch.model = flags.common.model;
  if (wanted.has_value()) watch.after = *wanted - 1;
  watch.trainer_epoch = flags.epoch;
  watch.worker = flags.worker;
  const absl::Status status =
      subscriber.Watch(watch, [&](const VersionSummary& version) { return !IsAwaited(version, wanted, flags.epoch); });
  interrupt.SetReaction(nullptr);
  if (status.ok() || interrupt.raised() || !timer.expired()) return status;
  return absl::DeadlineExceededError(absl::StrCat(
      "model \"", flags.common.model,
      "\": ", wanted ? absl::StrCat("version ", *wanted, " was not opened") : std::string("no version was committed"),
      " within ", FormatDuration(flags.wait_seconds)));
}

absl::Status Wait(const PullFlags& flags, Interrupt& interrupt) {
  ChannelOptions channel = flags.common.Channel(interrupt);
  channel.connect_timeout =
      std::max(channel.connect_timeout, std::chrono::milliseconds(static_cast<int64_t>(flags.wait_seconds * 1000)));
  absl::StatusOr<std::unique_ptr<Subscriber>> subscriber = Subscriber::Connect(channel);
  if (!subscriber.ok()) return subscriber.status();
  return WaitForVersion(flags, **subscriber, interrupt);
}

absl::StatusOr<std::unique_ptr<Verifier>> VerifierFor(const NativeOptions& native, const std::vector<LayoutRule>& rules,
                                                      bool quiet) {
  if (!native.given()) return nullptr;
  absl::StatusOr<std::shared_ptr<const NativeSource>> source = native.Open();
  if (!source.ok()) return source.status();
  if (!quiet) NoteOfFiles((*source)->note());
  Expectation expected;
  expected.source = *std::move(source);
  expected.adapter = native.adapter.name;
  expected.adapter_options = native.adapter.options;
  expected.dtype = native.dtype;
  expected.exclude_key_regex = native.exclude_key_regex;
  expected.keep_dtype_regex = native.keep_dtype_regex;
  expected.keep_family_dtypes = !native.cast_family_dtypes;
  expected.rules = rules;
  return MakeVerifier(std::move(expected));
}

// Null if none is given.
absl::StatusOr<std::shared_ptr<const PullBase>> BaseFor(const PullFlags& flags, const Interrupt& interrupt,
                                                        PullReport& report) {
  if (flags.base.path.empty()) return nullptr;
  const auto begin = std::chrono::steady_clock::now();
  absl::StatusOr<std::shared_ptr<const PullBase>> base = OpenBase(flags.base, [&] { return interrupt.raised(); });
  report.base_seconds = SecondsSince(begin);
  if (base.ok()) {
    for (const PullBase::Tensor& tensor : (*base)->tensors) report.base_bytes += tensor.bytes.size();
  }
  if (!absl::IsFailedPrecondition(base.status())) return base;
  return UsageError(absl::StrCat(base.status().message(), ": --base-version is needed"));
}

absl::Status Pull(const PullFlags& flags, PullOptions options, StagingSink& sink, Interrupt& interrupt,
                  PullReport& report) {
  absl::StatusOr<std::unique_ptr<Subscriber>> subscriber = Subscriber::Connect(flags.common.Channel(interrupt));
  if (!subscriber.ok()) return subscriber.status();
  options.model = flags.common.model;
  options.version = ParseVersion(flags.version);
  options.trainer_epoch = flags.epoch;
  options.filter = flags.filter;
  options.worker = flags.worker;
  options.streams = flags.streams;
  interrupt.SetReaction([&] { (*subscriber)->Cancel(); });
  absl::StatusOr<PullResult> result = (*subscriber)->Pull(options, sink);
  interrupt.SetReaction(nullptr);
  if (!result.ok()) return result.status();
  report.result = *std::move(result);
  report.wire_seconds =
      std::max(0.0, std::chrono::duration<double>(report.result.elapsed).count() - sink.stalled_seconds());
  return absl::OkStatus();
}

absl::Status PullAndReport(const PullFlags& flags, Interrupt& interrupt) {
  absl::StatusOr<std::string> out = flags.out.empty() ? std::string() : OutputPath(flags.out);
  if (!out.ok()) return out.status();
  EndAtOnce(interrupt, "refit: pull: interrupted; nothing was pulled");
  absl::StatusOr<std::vector<LayoutRule>> rules = flags.part.Rules();
  if (!rules.ok()) return rules.status();
  absl::StatusOr<std::unique_ptr<Verifier>> verifier = VerifierFor(flags.native, *rules, flags.common.quiet);
  if (!verifier.ok()) return verifier.status();
  interrupt.SetReaction(nullptr);
  PullReport report;
  absl::StatusOr<std::shared_ptr<const PullBase>> base = BaseFor(flags, interrupt, report);
  if (!base.ok()) return base.status();
  if (flags.wait_seconds > 0) {
    const absl::Status status = Wait(flags, interrupt);
    if (!status.ok()) return status;
  }
  const auto begin = std::chrono::steady_clock::now();
  report.server = flags.common.server;
  report.out = *out;
  report.part = flags.part;
  report.verified = *verifier != nullptr;
  TransferProgress progress(ChooseProgressStyle(flags.common),
                            flags.worker.empty() ? "pull" : absl::StrCat("pull ", flags.worker));
  StagingSink sink(progress, *std::move(out), *std::move(verifier), flags.filter.empty());
  PullOptions options;
  options.rules = *std::move(rules);
  options.base = *std::move(base);
  absl::Status status = Pull(flags, std::move(options), sink, interrupt, report);
  if (status.ok()) status = sink.Finish();
  if (status.ok()) status = sink.Commit();
  if (!status.ok()) return status;
  progress.Finish();
  report.verify_seconds = sink.verify_seconds();
  report.write_seconds = sink.write_seconds();
  report.total_seconds = report.base_seconds + SecondsSince(begin);
  if (flags.common.json) {
    PrintJson(ToJson(report), false, ReportStream(report.out));
  } else if (!flags.common.quiet) {
    Print(report);
  }
  return absl::OkStatus();
}

absl::Status RunPull(const PullFlags& flags) {
  const absl::Status torch = flags.native.given() ? ContinueWithTorch() : absl::OkStatus();
  if (!torch.ok()) return torch;
  Interrupt interrupt;
  return interrupt.Explain(PullAndReport(flags, interrupt),
                           flags.out.empty() ? "nothing is kept" : absl::StrCat(flags.out, " is not written"));
}

void AddBaseOptions(CLI::App* command, BaseFile& base) {
  const char group[] = "Only what has changed";
  CLI::Option* file =
      command
          ->add_option("--base", base.path,
                       "What is here already: a file that `refit pull` or `refit follow` wrote. If the service still "
                       "has that version, only what has changed since is sent; if not, all comes, and the report says "
                       "why. It may be the file of --out, which then is replaced in one step once all is well")
          ->type_name("OLD.safetensors")
          ->group(group);
  command
      ->add_option("--base-version", base.version,
                   "Which version the base is, for a file that others wrote; its tensors must be in the version's "
                   "order (default: as the file says)")
      ->check(AtLeast(1))
      ->type_name("N")
      ->needs(file)
      ->group(group);
  command
      ->add_option("--base-epoch", base.trainer_epoch,
                   "The trainer's run that the base is of (default: as the file says, or else 0)")
      ->check(AtLeast(0))
      ->type_name("N")
      ->needs(file)
      ->group(group);
}

}  // namespace

void AddPullCommand(CLI::App& app, Invocation& invocation) {
  const auto flags = std::make_shared<PullFlags>();
  CLI::App* command = AddCommand(
      app, invocation, "pull", "Pull a version as a worker does, verified",
      "Digests are always checked. Without --out and --verify nothing is kept: a rehearsal of a worker's pull. "
      "A version that is still being pushed streams while it is converted; the pull ends with its commit. "
      "With --ep-rank or --tp-rank only a worker's own part of the tensors comes; a file of it says in its metadata "
      "(\"refit.shards\") which that is.\n\n"
      "Examples:\n"
      "  refit pull --version latest --out hf.safetensors\n"
      "  refit pull --base hf.safetensors --out hf.safetensors  # only what has changed since\n"
      "  refit pull --version 8 --wait 60 --worker w0  # as soon as version 8 is opened\n"
      "  refit pull --verify-synthetic gemma4_26b_a4b --layers 2 --seed 7\n"
      "  refit pull --verify-synthetic gemma4_26b_a4b --step 3 --change 0.01\n"
      "  refit pull --filter 'layers\\.0\\.' --out layer0.safetensors\n"
      "  refit pull --ep-rank 3 --ep-size 8 --out experts3.safetensors\n"
      "  refit pull --tp-rank 0 --tp-size 2 --tp-rules gemma4_tp_rules.txt\n",
      [flags] { return RunPull(*flags); });
  command->add_option("-v,--version", flags->version, "Number of the version, or latest: the newest committed one")
      ->check(VersionOrLatest())
      ->type_name("N|latest")
      ->capture_default_str();
  command->add_option("--epoch", flags->epoch, "Only of this run of the trainer (default: the newest that has it)")
      ->check(AtLeast(0))
      ->type_name("N");
  command
      ->add_option("--wait", flags->wait_seconds,
                   "Wait so long for the service, and for the version to be opened (latest: for a committed one)")
      ->check(Seconds())
      ->type_name("SECONDS");
  command
      ->add_option(
          "-o,--out", flags->out,
          "Write the tensors to this file; it appears once all is well. A device or pipe is written through; - is "
          "stdout, and the report goes to stderr")
      ->type_name("F.safetensors|-");
  command->add_option("--filter", flags->filter, "Only tensors in whose name this RE2 pattern is found")
      ->type_name("RX");
  command->add_option("--worker", flags->worker, "Name of this worker, shown in status (default: its address)")
      ->type_name("NAME");
  AddStreamsOption(command, flags->streams);
  AddBaseOptions(command, flags->base);
  AddPartOptions(command, flags->part);
  AddNativeOptions(command, flags->native, "--verify", "--verify-synthetic");
  AddModelOption(command, flags->common);
  AddServersOptions(command, flags->common);
  command->parse_complete_callback([command, flags] {
    CheckPartOptions(flags->part);
    if (command->count("--base") > 0 && flags->base.path.empty()) {
      throw CLI::ValidationError("--base", "expected the name of a file");
    }
  });
}

}  // namespace refit::cli
