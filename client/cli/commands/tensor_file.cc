#include "client/cli/commands/tensor_file.h"

#include <unistd.h>

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/cli/commands/base_file.h"
#include "client/cli/run/exit_code.h"
#include "client/cli/terminal/status_lines.h"
#include "common/safetensors/output_target.h"
#include "common/safetensors/shard_metadata.h"

namespace refit::cli {

absl::StatusOr<std::string> OutputPath(const std::string& option) {
  std::string path = option == "-" ? "/proc/self/fd/1" : option;
  const absl::StatusOr<OutputTarget> target = ResolveOutput(path);
  if (absl::IsInvalidArgument(target.status())) return UsageError(target.status().message());
  if (!target.ok()) return target.status();
  const int descriptor = target->descriptor;
  if (descriptor >= 0 && isatty(descriptor) != 0) {
    return UsageError(absl::StrCat("cannot write ", Printable(option), ": it is a terminal"));
  }
  return path;
}

bool IsStdout(const std::string& path) {
  const absl::StatusOr<OutputTarget> target = ResolveOutput(path);
  return target.ok() && target->descriptor == STDOUT_FILENO;
}

std::FILE* ReportStream(const std::string& path) { return !path.empty() && IsStdout(path) ? stderr : stdout; }

void WarnOfFile(absl::string_view warning) {
  if (!warning.empty()) SayOnStderr(absl::StrCat("refit: warning: ", warning));
}

void NoteOfFiles(absl::string_view note) {
  if (!note.empty()) SayOnStderr(absl::StrCat("refit: ", note));
}

absl::StatusOr<std::unique_ptr<SafetensorsWriter>> CreateTensorFile(const std::string& path,
                                                                    const VersionSummary& version,
                                                                    const std::vector<TensorPart>& tensors) {
  std::map<std::string, std::string> metadata = VersionMetadata(version);
  metadata["format"] = "pt";  // transformers wants it
  if (!std::all_of(tensors.begin(), tensors.end(), [](const TensorPart& part) { return part.is_whole(); })) {
    absl::StatusOr<std::string> shards = FormatShardMetadata(tensors);
    if (!shards.ok()) return shards.status();
    metadata[kShardsKey] = *std::move(shards);
  }
  std::vector<TensorSpec> specs;
  specs.reserve(tensors.size());
  for (const TensorPart& part : tensors) specs.push_back(part.spec());
  return SafetensorsWriter::Create(path, std::move(specs), metadata);
}

}  // namespace refit::cli
