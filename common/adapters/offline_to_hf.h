// Converts a checkpoint of native tensors to a safetensors file of HF tensors, without LibTorch.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "common/adapters/offline_options.h"

namespace refit {

// kPerTensor and kStateDict. Reads `in`, a safetensors file or a checkpoint folder, and writes the file `out`, with
// tensors in emission order. Only one converted tensor is in memory at a time. On any error there is no new file, and
// an existing file at `out` is unchanged. Errors as FindAdapter, Checkpoint::Open, the mode's plan, and
// SafetensorsWriter.
absl::StatusOr<ConvertedFile> ConvertFileToHf(const OfflineConvertOptions& options, const std::string& in,
                                              const std::string& out);

}  // namespace refit
