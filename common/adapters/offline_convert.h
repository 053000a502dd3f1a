// Converts a checkpoint to another safetensors file, tensor by tensor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "common/adapters/gemma4_moe_plan.h"

namespace refit {

struct OfflineConvertOptions {
  enum class Mode {
    kPerTensor,  // native to HF: convert_single_tensor_to_hf for each tensor, in file order
    kStateDict,  // native to HF: to_hf
    kNative,     // HF to native: from_hf
  };
  Mode mode = Mode::kPerTensor;
  // A name that FindAdapter knows. Only gemma4_moe has kStateDict and kNative: INVALID_ARGUMENT with others.
  std::string adapter = "gemma4_moe";
  Gemma4MoeConfig config;
  // The adapter's dtype: for the scales of kStateDict and the experts of kNative.
  DType dtype = DType::kF32;
  // For kPerTensor: the type to which castable tensors are cast. Unset: no cast.
  std::optional<DType> cast;
  // Python re.match against native names in kPerTensor, and against HF names in kStateDict. INVALID_ARGUMENT in
  // kNative. Empty: none. A native tensor that matches need not be readable.
  std::string exclude_key_regex;
  // For kNative: the rank whose part is made.
  ExpertMesh mesh;
};

// What was written.
struct ConvertedFile {
  size_t tensors = 0;
  uint64_t bytes = 0;   // sum of all tensors
  std::string warning;  // as SafetensorsWriter::warning
  std::string note;     // as Checkpoint::note
};

// Reads `in`, a safetensors file or a checkpoint folder, and writes the file `out`, with tensors in emission order.
// Only one converted tensor is in memory at a time. On any error there is no new file, and an existing file at `out` is
// unchanged. Errors as FindAdapter, Checkpoint::Open, the mode's plan, and SafetensorsWriter.
absl::StatusOr<ConvertedFile> ConvertFile(const OfflineConvertOptions& options, const std::string& in,
                                          const std::string& out);

}  // namespace refit
