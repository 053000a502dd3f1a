// What `refit convert` is asked for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "common/adapters/gemma4_moe_plan.h"
#include "common/adapters/plan.h"

namespace refit {

// The reference's default for gemma4_moe.
inline constexpr DType kGemma4MoeDType = DType::kF32;

struct OfflineConvertOptions {
  enum class Mode {
    kPerTensor,  // native to HF: convert_single_tensor_to_hf for each tensor, in file order
    kStateDict,  // native to HF: to_hf
    kNative,     // HF to native: from_hf
  };
  Mode mode = Mode::kPerTensor;
  // A name that FindAdapter knows, or, for kPerTensor, "auto". Only gemma4_moe has kStateDict: INVALID_ARGUMENT with
  // others.
  std::string adapter = "gemma4_moe";
  // Choices of the family. gemma4_moe's kStateDict and kNative have none.
  AdapterOptions adapter_options;
  // For gemma4_moe's kStateDict and kNative.
  Gemma4MoeConfig config;
  // The adapter's dtype: for the scales of kStateDict and the experts of kNative. Unset: F32 for gemma4_moe, and for
  // others the dtype that they have.
  std::optional<DType> dtype;
  // For kPerTensor: the type to which castable tensors are cast. Unset: no cast.
  std::optional<DType> cast;
  // Python's re.match against the names that the family says, in kStateDict against HF names. INVALID_ARGUMENT in
  // kNative. Empty: none. A native tensor that matches need not be readable.
  std::string exclude_key_regex;
  // For gemma4_moe's kNative: the rank whose part is made.
  ExpertMesh mesh;
};

// What was written.
struct ConvertedFile {
  size_t tensors = 0;
  uint64_t bytes = 0;   // sum of all tensors
  std::string warning;  // as SafetensorsWriter::warning
  std::string note;     // as Checkpoint::note, and what else its user should know
};

}  // namespace refit
