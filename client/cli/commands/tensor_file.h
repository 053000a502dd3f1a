// Opens the safetensors files that commands write, and prints notes about files.
#pragma once

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/safetensors/safetensors.h"
#include "refit/box.h"
#include "refit/version_summary.h"

namespace refit::cli {

// Checks the value of --out; "-" means stdout and becomes its path. Returns a usage error for a folder, a block device
// or a terminal.
absl::StatusOr<std::string> OutputPath(const std::string& option);

// Whether the file goes to stdout. Then nothing else may be printed there.
bool IsStdout(const std::string& path);

// Where a report about the file goes: stdout, or stderr if the file itself goes to stdout.
std::FILE* ReportStream(const std::string& path);

// Prints a warning about a file that is written on stderr. Nothing if `warning` is empty.
void WarnOfFile(absl::string_view warning);

// Prints a note about files that are read on stderr. Nothing if `note` is empty.
void NoteOfFiles(absl::string_view note);

// Creates a file whose tensors have the shapes of the parts. The metadata says which version they are, and for parts
// that are not whole tensors, which part of which tensor.
absl::StatusOr<std::unique_ptr<SafetensorsWriter>> CreateTensorFile(const std::string& path,
                                                                    const VersionSummary& version,
                                                                    const std::vector<TensorPart>& tensors);

}  // namespace refit::cli
