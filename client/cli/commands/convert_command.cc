// `refit convert`: converts tensors from file to file, without a service.
#include <cstdio>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "client/cli/commands/tensor_file.h"
#include "client/cli/commands/torch_work.h"
#include "client/cli/options/adapter_options.h"
#include "client/cli/options/options.h"
#include "client/cli/run/exit_code.h"
#include "client/cli/run/interrupt.h"
#include "client/cli/run/stopwatch.h"
#include "client/cli/terminal/end_at_once.h"
#include "client/cli/terminal/format.h"
#include "client/cli/terminal/json.h"
#include "client/cli/terminal/status_lines.h"
#include "common/adapters/family_adapter.h"
#include "common/adapters/offline_from_hf.h"
#include "common/adapters/offline_to_hf.h"
#include "common/adapters/recognise_family.h"

namespace refit::cli {
namespace {

struct ConvertFlags {
  CommonOptions common;
  std::string to;
  std::string mode = "per-tensor";
  AdapterChoice adapter;
  OfflineConvertOptions options;
  std::string in;
  std::string out;
  int64_t experts = 0;  // 0: not given
};

void Report(const ConvertFlags& flags, const std::string& out, const ConvertedFile& written, double seconds) {
  std::FILE* const stream = ReportStream(out);
  if (flags.common.json) {
    PrintJson(
        {{"out", flags.out}, {"tensors", written.tensors}, {"bytes", written.bytes}, {"seconds", {{"total", seconds}}}},
        false, stream);
  } else if (!flags.common.quiet) {
    const std::string text = absl::StrCat("Wrote ", flags.out, ": ", FormatCount(written.tensors, "tensor"), ", ",
                                          FormatBytes(written.bytes), " in ", FormatDuration(seconds), " (",
                                          FormatRate(written.bytes, seconds), ")");
    std::fprintf(stream, "%s\n", text.c_str());
  }
}

OfflineConvertOptions OptionsOf(const ConvertFlags& flags) {
  using Mode = OfflineConvertOptions::Mode;
  OfflineConvertOptions options = flags.options;
  options.mode = flags.to == "native"         ? Mode::kNative
                 : flags.mode == "state-dict" ? Mode::kStateDict
                                              : Mode::kPerTensor;
  options.adapter = flags.adapter.name;
  options.adapter_options = flags.adapter.options;
  if (flags.experts > 0) {
    options.config.n_routed_experts = flags.experts;
    options.adapter_options[std::string(kExpertsOption)] = absl::StrCat(flags.experts);
  }
  return options;
}

absl::Status RunConvert(const ConvertFlags& flags) {
  const absl::StatusOr<std::string> out = OutputPath(flags.out);
  if (!out.ok()) return out.status();
  const OfflineConvertOptions options = OptionsOf(flags);
  const bool to_native = options.mode == OfflineConvertOptions::Mode::kNative;
  const bool needs_torch = to_native && options.adapter == AdapterChoice().name;
  const absl::Status torch = needs_torch ? ContinueWithTorch() : absl::OkStatus();
  if (!torch.ok()) return torch;
  Interrupt interrupt;
  // A conversion has no connection to close, and the unfinished file has no name yet.
  EndAtOnce(interrupt, absl::StrCat("refit: convert: interrupted; ", flags.out, " is not written"));
  Stopwatch watch;
  const absl::StatusOr<ConvertedFile> written = watch.Time([&] {
    if (needs_torch) return ConvertOffline(options, flags.in, *out);
    return to_native ? ConvertFileFromHf(options, flags.in, *out) : ConvertFileToHf(options, flags.in, *out);
  });
  if (!written.ok()) return written.status();
  if (!flags.common.quiet) NoteOfFiles(written->note);
  WarnOfFile(written->warning);
  Report(flags, *out, *written, watch.seconds());
  return absl::OkStatus();
}

// Every failed conversion has the same exit code. An output that cannot be written is a usage error.
int ConvertExitCode(const absl::Status& status) {
  return status.ok() ? kExitOk : IsUsageError(status) ? kExitUsage : kExitFailed;
}

void AddMeshOption(CLI::App* command, const std::string& name, int64_t& value, const std::string& help, int64_t least) {
  command->add_option(name, value, help)
      ->check(AtLeast(least))
      ->type_name("N")
      ->capture_default_str()
      ->group("Expert parallel (--to native --adapter gemma4_moe)");
}

// Checks options that depend on each other, which CLI11 cannot do.
void CheckUsage(const CLI::App& command, const ConvertFlags& flags) {
  const std::string& own = AdapterChoice().name;
  if (flags.to == "hf" && flags.mode == "state-dict" && flags.adapter.name != own) {
    throw CLI::ValidationError("--mode", absl::StrCat("state-dict is ", own, "'s alone"));
  }
  if (flags.to == "native" && flags.adapter.name == kAutoAdapter) {
    throw CLI::ValidationError("--adapter", "auto knows families by their native names; name the adapter");
  }
  if (flags.to == "native") {
    for (const char* option : {"--mode", "--exclude-key-regex"}) {
      if (command.count(option) > 0) throw CLI::ValidationError(option, "only with --to hf");
    }
    if (flags.adapter.name == own) return;
  }
  for (const char* option : {"--ep-rank", "--ep-size", "--ep-shard-rank", "--ep-shard-size"}) {
    if (command.count(option) > 0) {
      throw CLI::ValidationError(option, absl::StrCat("only with --to native --adapter ", own));
    }
  }
}

}  // namespace

void AddConvertCommand(CLI::App& app, Invocation& invocation) {
  const auto flags = std::make_shared<ConvertFlags>();
  CLI::App* command = AddCommand(
      app, invocation, "convert", "Convert a file offline, as the service does",
      "To hf, --mode per-tensor: convert_single_tensor_to_hf on each tensor in file order, no cast.\n"
      "To hf, --mode state-dict: to_hf. To native: from_hf, whose result makes the same file again when it is "
      "converted "
      "to hf; for gemma4_moe also for one rank of an expert-parallel mesh.\n\n"
      "Examples:\n"
      "  refit convert --to hf native.safetensors hf.safetensors\n"
      "  refit convert --to hf --adapter qwen3_moe --experts 128 --expert-width 768 native.safetensors hf.safetensors\n"
      "  refit convert --to native --adapter qwen3_moe ckpt/ native.safetensors\n"
      "  refit convert --to native --dtype BF16 --ep-rank 1 --ep-size 4 ckpt/ rank1.safetensors\n",
      [flags] { return RunConvert(*flags); }, ConvertExitCode);
  command->add_option("IN", flags->in, "Safetensors file or checkpoint folder")->required()->type_name("");
  command
      ->add_option("OUT", flags->out,
                   "File to write; it appears once all is well. A device or pipe is written through; - is stdout")
      ->required()
      ->type_name("");
  command->add_option("--to", flags->to, "Which layout to make")
      ->required()
      ->check(OneOf({"hf", "native"}))
      ->type_name("hf|native");
  command->add_option("--mode", flags->mode, "How to make hf, see below")
      ->check(OneOf({"per-tensor", "state-dict"}))
      ->type_name("per-tensor|state-dict")
      ->capture_default_str();
  AddAdapterOptions(command, flags->adapter, "Family", /*with_experts=*/false);
  command
      ->add_option(
          "--experts", flags->experts,
          "Routed experts of the model (checked if given; gemma4_moe's state-dict and native: 128 unless given)")
      ->check(AtLeast(1))
      ->type_name("N")
      ->group("Family");
  AddDTypeOption(
      command, "--dtype", {DType::kF32, DType::kBF16, DType::kF16},
      [flags](DType dtype) { flags->options.dtype = dtype; },
      "The adapter's dtype: of the experts that native makes, of the scales that state-dict makes")
      ->default_str("F32 for gemma4_moe, or as it comes");
  command
      ->add_option("--exclude-key-regex", flags->options.exclude_key_regex,
                   "Leave out tensors whose name (per-tensor: native or HF, as the family has it; state-dict: HF) "
                   "matches from its beginning, as Python's re.match")
      ->type_name("RX");
  ExpertMesh& mesh = flags->options.mesh;
  AddMeshOption(command, "--ep-rank", mesh.ep_rank, "Which part of the experts", 0);
  AddMeshOption(command, "--ep-size", mesh.ep_size, "Into how many parts the experts are split", 1);
  AddMeshOption(command, "--ep-shard-rank", mesh.ep_shard_rank, "Which part of dimension 1", 0);
  AddMeshOption(command, "--ep-shard-size", mesh.ep_shard_size, "Into how many parts dimension 1 is split", 1);
  AddOutputOptions(command, flags->common);
  command->parse_complete_callback([command, flags] { CheckUsage(*command, *flags); });
}

}  // namespace refit::cli
