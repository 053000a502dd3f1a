// Element types of tensors: those of the safetensors format.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace refit {

// Values equal refit.v1.DType on the wire. Elements are little-endian.
enum class DType : uint8_t {
  kF64 = 1,
  kF32 = 2,
  kF16 = 3,
  kBF16 = 4,
  kF8E4M3 = 5,
  kF8E5M2 = 6,
  kI64 = 7,
  kI32 = 8,
  kI16 = 9,
  kI8 = 10,
  kU8 = 11,
  kBool = 12,
};

inline constexpr DType kAllDTypes[] = {DType::kF64,    DType::kF32,    DType::kF16, DType::kBF16,
                                       DType::kF8E4M3, DType::kF8E5M2, DType::kI64, DType::kI32,
                                       DType::kI16,    DType::kI8,     DType::kU8,  DType::kBool};

// Size of one element in bytes: 1, 2, 4 or 8.
size_t ElementSize(DType dtype);

// The safetensors name, such as "BF16" or "F8_E4M3".
absl::string_view Name(DType dtype);

// Reads a safetensors name, in any case. INVALID_ARGUMENT, listing the names known, if it is none.
absl::StatusOr<DType> ParseDType(absl::string_view name);

// Reads a wire value. INVALID_ARGUMENT if it is none of the enumerators.
absl::StatusOr<DType> DTypeFromWire(int value);

// F64, F32, F16 and BF16: the types that a version's dtype option casts between. F8 tensors are never cast: a cast
// would need scales that no adapter has.
bool IsCastable(DType dtype);

}  // namespace refit
