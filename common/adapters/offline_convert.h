// The adapter on files: converts a checkpoint to another safetensors file, tensor by tensor.
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
    kPerTensor,  // native to HF: convert_single_tensor_to_hf on each tensor in file order
    kStateDict,  // native to HF: to_hf
    kNative,     // HF to native: from_hf
  };
  Mode mode = Mode::kPerTensor;
  // As FindAdapter knows it. kStateDict and kNative are gemma4_moe's alone: INVALID_ARGUMENT with others.
  std::string adapter = "gemma4_moe";
  Gemma4MoeConfig config;
  // The adapter's dtype: of kStateDict's scales, and of kNative's experts.
  DType dtype = DType::kF32;
  // kPerTensor: castable tensors become this on the way. Unset: no cast.
  std::optional<DType> cast;
  // Python re.match: on native names in kPerTensor, on HF names in kStateDict; INVALID_ARGUMENT in kNative. Empty:
  // none. A native tensor whose name matches need not be one that can be read.
  std::string exclude_key_regex;
  // kNative: the rank whose part is made.
  ExpertMesh mesh;
};

// What was written.
struct ConvertedFile {
  size_t tensors = 0;
  uint64_t bytes = 0;   // of tensors
  std::string warning;  // as SafetensorsWriter::warning
  std::string note;     // as Checkpoint::note
};

// Reads `in`, a safetensors file or a checkpoint folder, and writes the file `out`, tensors in emission order. Holds
// one converted tensor in memory at a time. On any error there is no new file, and a file that was at `out` is
// untouched. Errors as FindAdapter, Checkpoint::Open, the plan that the mode names, and SafetensorsWriter.
absl::StatusOr<ConvertedFile> ConvertFile(const OfflineConvertOptions& options, const std::string& in,
                                          const std::string& out);

}  // namespace refit
