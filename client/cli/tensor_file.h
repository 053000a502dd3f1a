// Pulled tensors as a safetensors file.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/safetensors/safetensors.h"
#include "common/tensor/box.h"

namespace refit::cli {

// Tensors shaped as their parts; where these are not the whole, the metadata says what they are parts of.
absl::StatusOr<std::unique_ptr<SafetensorsWriter>> CreateTensorFile(const std::string& path,
                                                                    const std::vector<TensorPart>& tensors);

}  // namespace refit::cli
