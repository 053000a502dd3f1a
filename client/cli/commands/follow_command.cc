// `refit follow`: a worker that stages and installs each new version.
#include <chrono>
#include <cstdio>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/cli/commands/base_file.h"
#include "client/cli/commands/tensor_file.h"
#include "client/cli/commands/traffic.h"
#include "client/cli/options/options.h"
#include "client/cli/options/shard_options.h"
#include "client/cli/options/stream_options.h"
#include "client/cli/run/exit_code.h"
#include "client/cli/run/interrupt.h"
#include "client/cli/run/run_connected.h"
#include "client/cli/run/timer.h"
#include "client/cli/terminal/end_at_once.h"
#include "client/cli/terminal/format.h"
#include "client/cli/terminal/json.h"
#include "client/cli/terminal/status_lines.h"
#include "common/net/repeated_messages.h"
#include "common/net/version_summary.h"
#include "common/safetensors/output_target.h"
#include "refit/worker.h"

namespace refit::cli {
namespace {

struct FollowFlags {
  CommonOptions common;
  PartOptions part;
  std::string filter;
  std::string worker;
  uint32_t streams = 1;
  std::string out;
  uint64_t count = 0;
  uint64_t max_step = 0;
  bool accept_new_run = false;
  bool no_deltas = false;
  double timeout_seconds = 0;
};

double InSeconds(std::chrono::nanoseconds time) { return std::chrono::duration<double>(time).count(); }

// Installs a version as a file. The old file stays in place until the new one is whole.
class FileEngine {
 public:
  // `is_stopped`: whether the command is to end.
  FileEngine(const FollowFlags& flags, std::function<bool()> is_stopped)
      : flags_(flags), is_stopped_(std::move(is_stopped)) {}

  // The file in use, also one that an earlier worker wrote. Null if there is none.
  std::shared_ptr<const PullBase> Base() {
    if (!std::exchange(has_looked_, true)) OpenFileInUse();
    return base_;
  }

  absl::Status Install(StagedVersion& staged) {
    const auto begin = std::chrono::steady_clock::now();
    if (!flags_.out.empty()) {
      if (absl::Status status = Write(staged); !status.ok()) return status;
    }
    ++installed_;
    told_.emplace();
    Tell(staged, std::chrono::steady_clock::now() - begin);
    return absl::OkStatus();
  }

  // Also true when stdout has no reader any more.
  bool is_done() const { return has_all() || out_.reader_gone(); }
  bool has_all() const { return flags_.count != 0 && installed_ >= flags_.count; }

  uint64_t installed() const { return installed_; }

  // Reports an error once in a while, since it may come several times a second until the service is back.
  void Tell(const absl::Status& error) {
    const std::optional<std::string> message = told_->Pass(error.message());
    if (message.has_value()) errors_.Say(absl::StrCat("refit: follow: ", *message, "; trying on"));
  }

 private:
  void OpenFileInUse() {
    absl::StatusOr<std::shared_ptr<const PullBase>> base = OpenBase({flags_.out, {}, {}}, is_stopped_);
    if (base.ok()) {
      base_ = *std::move(base);
    } else if (!absl::IsNotFound(base.status()) && !absl::IsCancelled(base.status())) {
      errors_.Say(absl::StrCat("refit: follow: ", base.status().message(), "; the first version comes whole"));
    }
  }

  absl::Status Write(const StagedVersion& staged) {
    std::vector<TensorPart> parts;
    for (const StagedVersion::Tensor& tensor : staged.tensors) parts.push_back(tensor.part);
    absl::StatusOr<std::unique_ptr<SafetensorsWriter>> writer = CreateTensorFile(flags_.out, staged.version, parts);
    if (!writer.ok()) return writer.status();
    for (size_t i = 0; i < staged.tensors.size(); ++i) {
      if (absl::Status status = (*writer)->WriteAt(i, 0, staged.tensors[i].bytes); !status.ok()) return status;
    }
    if (absl::Status status = (*writer)->Commit(); !status.ok()) return status;
    if (!(*writer)->warning().empty()) errors_.Say(absl::StrCat("refit: warning: ", (*writer)->warning()));
    base_ = flags_.no_deltas ? nullptr : BaseOfWritten(flags_.out, staged).value_or(nullptr);
    return absl::OkStatus();
  }

  void Tell(const StagedVersion& staged, std::chrono::nanoseconds install_time) {
    uint64_t bytes = 0;
    for (const StagedVersion::Tensor& tensor : staged.tensors) bytes += tensor.part.ByteSize();
    if (flags_.common.json) {
      nlohmann::ordered_json json = {
          {"version", ToJson(ToProto(staged.version))}, {"tensors", staged.tensors.size()}, {"bytes", bytes}};
      json.update(ToJson(staged.traffic));
      json["address"] = staged.address;
      json["moved"] = staged.moved;
      json["skipped"] = staged.skipped;
      json["seconds"] = {{"stage", InSeconds(staged.stage_time)}, {"install", InSeconds(install_time)}};
      out_.Say(CompactJson(json));
    } else if (!flags_.common.quiet) {
      const double seconds = InSeconds(staged.stage_time);
      std::string line = absl::StrCat("Installed version ", staged.version.version, ": ",
                                      FormatCount(staged.tensors.size(), "tensor"), ", ", FormatBytes(bytes));
      if (const std::string changes = ChangesText(staged.traffic); !changes.empty())
        absl::StrAppend(&line, " ", changes);
      if (const std::string route = RouteText(flags_.common.server, staged.address, staged.moved); !route.empty())
        absl::StrAppend(&line, " ", route);
      absl::StrAppend(&line, ", staged in ", FormatDuration(seconds), " (", FormatRate(bytes, seconds), ")");
      if (!flags_.out.empty()) absl::StrAppend(&line, ", written in ", FormatDuration(InSeconds(install_time)));
      if (!staged.skipped.empty()) absl::StrAppend(&line, ", skipped ", absl::StrJoin(staged.skipped, ", "));
      const std::string refusal = RefusalText(staged.traffic);
      if (refusal != told_refusal_ && !refusal.empty()) absl::StrAppend(&line, "; ", refusal);
      told_refusal_ = refusal;
      out_.Say(std::move(line));
    }
  }

  const FollowFlags& flags_;
  const std::function<bool()> is_stopped_;
  std::shared_ptr<const PullBase> base_;
  bool has_looked_ = false;
  uint64_t installed_ = 0;
  std::optional<RepeatedMessages> told_{std::in_place};  // since the last installed version
  std::string told_refusal_;
  StatusLines out_{stdout, flags_.common.json};
  StatusLines errors_{stderr};
};

// `follow` cannot write to a stream: a stream cannot keep a version that is in use.
absl::Status CheckOutput(const std::string& out) {
  if (out.empty()) return absl::OkStatus();
  const absl::StatusOr<OutputTarget> target = ResolveOutput(out);
  if (target.ok() && target->kind == OutputTarget::Kind::kFile && out != "-") return absl::OkStatus();
  if (!target.ok() && !absl::IsInvalidArgument(target.status())) return target.status();
  return UsageError(absl::StrCat("--out: expected a file, which is replaced by each version, got ", Printable(out),
                                 ", ", target.ok() ? "a device or pipe" : target.status().message(),
                                 "; `refit pull --out` writes one version there"));
}

absl::Status RunFollow(const FollowFlags& flags) {
  if (absl::Status status = CheckOutput(flags.out); !status.ok()) return status;
  Interrupt interrupt;
  EndAtOnce(interrupt, "refit: follow: interrupted");
  absl::StatusOr<std::vector<LayoutRule>> rules = flags.part.Rules();
  interrupt.SetReaction(nullptr);
  if (!rules.ok()) return rules.status();
  std::unique_ptr<Timer> timer;
  FileEngine engine(flags, [&] { return interrupt.raised() || (timer != nullptr && timer->expired()); });
  WorkerOptions options;
  options.pull.model = flags.common.model;
  options.pull.filter = flags.filter;
  options.pull.worker = flags.worker;
  options.pull.streams = flags.streams;
  options.pull.rules = *std::move(rules);
  options.max_version_step = flags.max_step;
  options.accept_new_run = flags.accept_new_run;
  options.deltas = !flags.no_deltas;
  if (!flags.out.empty()) options.base = [&] { return engine.Base(); };
  options.install = [&](StagedVersion& staged) { return engine.Install(staged); };
  options.on_error = [&](const absl::Status& status) { engine.Tell(status); };
  absl::StatusOr<std::unique_ptr<Worker>> worker = Worker::Create(flags.common.Channel(interrupt), std::move(options));
  if (!worker.ok()) return interrupt.Explain(worker.status(), kNothingChanged);
  if (flags.timeout_seconds > 0) {
    timer = std::make_unique<Timer>(std::chrono::duration<double>(flags.timeout_seconds), [&] { (*worker)->Stop(); });
  }
  interrupt.SetReaction([&] { (*worker)->Stop(); });
  const absl::Status status = (*worker)->Follow([&] { return engine.is_done(); });
  interrupt.SetReaction(nullptr);
  if (interrupt.raised()) return absl::CancelledError("interrupted; what was installed stays in use");
  if (timer != nullptr && timer->expired() && flags.count != 0 && !engine.has_all()) {
    return absl::DeadlineExceededError(absl::StrCat(engine.installed(), " of ", FormatCount(flags.count, "version"),
                                                    " came within ", FormatDuration(flags.timeout_seconds)));
  }
  return status;
}

}  // namespace

void AddFollowCommand(CLI::App& app, Invocation& invocation) {
  const auto flags = std::make_shared<FollowFlags>();
  CLI::App* command = AddCommand(
      app, invocation, "follow", "Follow versions as a worker does: stage, verify, install",
      "Each version is staged while it is pushed, verified, and installed in one step: with --out that file is "
      "replaced, and holds a whole version at any time. It is also the base of the next version: only what has changed "
      "since is sent, also after a restart of this command. A version that holds installs waits for `refit release`. "
      "Survives restarts of the service; ends with Ctrl-C, --count or --timeout.\n\n"
      "Examples:\n"
      "  refit follow\n"
      "  refit follow --worker w0 --out policy.safetensors\n"
      "  refit follow --count 1 --timeout 600\n",
      [flags] { return RunFollow(*flags); });
  command->add_option("-o,--out", flags->out, "Keep the version in use in this file")->type_name("F.safetensors");
  command->add_option("--filter", flags->filter, "Only tensors in whose name this RE2 pattern is found")
      ->type_name("RX");
  command->add_option("--worker", flags->worker, "Name of this worker, shown in status (default: host and process)")
      ->type_name("NAME");
  command->add_option("--count", flags->count, "End after N installs")->check(AtLeast(1))->type_name("N");
  command->add_option("--timeout", flags->timeout_seconds, "End after so long; fail if --count was not reached")
      ->check(Seconds())
      ->type_name("SECONDS");
  command->add_option("--max-version-step", flags->max_step, "Refuse versions whose number is further from the last")
      ->check(AtLeast(1))
      ->type_name("N");
  command->add_flag("--accept-new-run", flags->accept_new_run,
                    "Also take lower numbers than the one in use, where the service never had that: after a trainer "
                    "was started anew without a larger --epoch, or the service without its --spool");
  command->add_flag("--no-deltas", flags->no_deltas,
                    "Always receive whole tensors, not what has changed since the version in the file of --out");
  AddStreamsOption(command, flags->streams);
  AddPartOptions(command, flags->part);
  AddModelOption(command, flags->common);
  AddServersOptions(command, flags->common);
  command->parse_complete_callback([flags] { CheckPartOptions(flags->part); });
}

}  // namespace refit::cli
