// Safetensors files that commands write, and what is said of those that they read.
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

namespace refit::cli {

// What --out names: "-" is stdout, as a path. A usage error for what can be no file or stream: a folder, a block
// device, a terminal.
absl::StatusOr<std::string> OutputPath(const std::string& option);

// Whether the file goes to stdout, so that nothing else may.
bool IsStdout(const std::string& path);

// Where a report of the file goes: stdout, or stderr if the file takes that.
std::FILE* ReportStream(const std::string& path);

// Says on stderr what is good to know of a file that is written; nothing if `warning` is empty.
void WarnOfFile(absl::string_view warning);

// Says on stderr what is not plain about files that are read; nothing if `note` is empty.
void NoteOfFiles(absl::string_view note);

// Tensors shaped as their parts; where these are not the whole, the metadata says what they are parts of.
absl::StatusOr<std::unique_ptr<SafetensorsWriter>> CreateTensorFile(const std::string& path,
                                                                    const std::vector<TensorPart>& tensors);

}  // namespace refit::cli
