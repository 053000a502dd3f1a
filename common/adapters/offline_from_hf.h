// Converts a checkpoint of HF tensors to a safetensors file of native tensors, without LibTorch. For all families but
// gemma4_moe, whose experts also have scales: offline_convert.h.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "common/adapters/offline_options.h"

namespace refit {

// Reads `in`, a safetensors file or a checkpoint folder, and writes the file `out`. One native tensor is in memory at a
// time. On any error there is no new file, and an existing file at `out` is unchanged. Errors as Checkpoint::Open,
// PlanFromHf and SafetensorsWriter; INVALID_ARGUMENT also for values that the native tensors have no place for.
absl::StatusOr<ConvertedFile> ConvertFileFromHf(const OfflineConvertOptions& options, const std::string& in,
                                                const std::string& out);

}  // namespace refit
