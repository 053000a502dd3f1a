// Converts a checkpoint to another safetensors file, tensor by tensor, either way.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "common/adapters/offline_options.h"

namespace refit {

// As ConvertFileToHf; and kNative, for which it needs LibTorch.
absl::StatusOr<ConvertedFile> ConvertFile(const OfflineConvertOptions& options, const std::string& in,
                                          const std::string& out);

}  // namespace refit
