// `refit push`: sends native tensors as a new version.
#include <chrono>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/cli/commands/push_report.h"
#include "client/cli/commands/push_run.h"
#include "client/cli/commands/tensor_file.h"
#include "client/cli/options/native_options.h"
#include "client/cli/options/options.h"
#include "client/cli/options/shard_options.h"
#include "client/cli/run/interrupt.h"
#include "client/cli/terminal/end_at_once.h"
#include "client/cli/terminal/json.h"
#include "client/cli/terminal/progress.h"
#include "client/native/shard_source.h"
#include "refit/publisher.h"

namespace refit::cli {
namespace {

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
  uint32_t streams = 1;
};

absl::StatusOr<PublishOptions> OptionsOf(const PushFlags& flags, Publisher& publisher) {
  PublishOptions options;
  options.model = flags.common.model;
  options.version = flags.version;
  options.adapter = flags.native.adapter.name;
  options.adapter_options = flags.native.adapter.options;
  options.keep_family_dtypes = !flags.native.cast_family_dtypes;
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

absl::Status PushVersion(const PushFlags& flags, std::shared_ptr<const ShardSource> source, Interrupt& interrupt,
                         PushReport& report) {
  const auto begin = std::chrono::steady_clock::now();
  report.rank = flags.rank;
  report.synthetic = flags.native.path.empty();
  absl::StatusOr<std::unique_ptr<Publisher>> publisher =
      Publisher::Connect(flags.common.Channel(interrupt), flags.streams);
  if (!publisher.ok()) return interrupt.Explain(publisher.status(), kNothingPushed);
  interrupt.SetReaction([&] { (*publisher)->Cancel(); });
  absl::StatusOr<PublishOptions> options = OptionsOf(flags, **publisher);
  interrupt.SetReaction(nullptr);
  if (!options.ok()) return interrupt.Explain(options.status(), kNothingPushed);
  TransferProgress progress(ChooseProgressStyle(flags.common), absl::StrCat("push version ", options->version));
  const absl::Status status = RunPush(*std::move(options), **publisher, std::move(source), progress, interrupt, report);
  report.total_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return status;
}

std::vector<TensorSpec> NativeOf(const ShardSource& source) {
  std::vector<TensorSpec> native;
  native.reserve(source.shards().size());
  for (const TensorPart& shard : source.shards()) native.push_back(shard.tensor);
  return native;
}

absl::Status RunCommand(const PushFlags& flags) {
  Interrupt interrupt;
  EndAtOnce(interrupt, absl::StrCat("refit: push: interrupted; ", kNothingPushed));
  absl::StatusOr<std::shared_ptr<const ShardSource>> source = OpenShards(flags.native, flags.rank);
  interrupt.SetReaction(nullptr);
  if (!source.ok()) return source.status();
  if (!flags.common.quiet) {
    NoteOfFiles((*source)->note());
    NoteOfFiles(NoteOfAdapter(flags.native.adapter, NativeOf(**source)));
  }
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
                 "Workers may receive the version while it is pushed, but install it only once all of it came and it "
                 "is committed. An error or Ctrl-C aborts it: then no worker installs anything of it.\n\n"
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
                 "  refit push --adapter auto checkpoint/             # finds out the family, and says so\n"
                 "  refit push --synthetic gemma4_26b_a4b --layers 2 --seed 7\n"
                 "  refit push --synthetic gemma4_26b_a4b --step 3 --change 0.01  # 1 % moves at each of 3 steps\n"
                 "  refit push -v 7 --rank 3 --world 8 --ep-size 8 --fsdp-size 8 checkpoint/\n"
                 "  refit push -v 7 --rank 3 --world 8 rank3.safetensors\n",
                 [flags] { return RunCommand(*flags); });
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
  command
      ->add_option("--streams", flags->streams,
                   "Push over so many connections, each with a part of the bytes: for links on which one connection is "
                   "slower than the link. Holds up to the largest tensor in memory meanwhile. Not with --world, whose "
                   "ranks are connections already")
      ->check(AtLeast(1))
      ->type_name("N")
      ->capture_default_str();
  AddRankOptions(command, flags->rank);
  AddModelOption(command, flags->common);
  AddServerOptions(command, flags->common);
  command->parse_complete_callback([command, flags] {
    if (!flags->native.given()) throw CLI::RequiredError("NATIVE (a file or folder) or --synthetic");
    CheckRankOptions(command, flags->rank, flags->version > 0);
  });
}

}  // namespace refit::cli
