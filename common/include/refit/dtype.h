// Element types of tensors: those of the safetensors format. Types that no kernel handles are passed as bytes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace refit {

// Values equal refit.v1.DType in the protocol. Elements are little-endian.
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
  kU16 = 13,
  kU32 = 14,
  kU64 = 15,
  kF8E8M0 = 16,  // powers of two: the block scales of MXFP8 and MXFP4
  kF8E4M3Fnuz = 17,
  kF8E5M2Fnuz = 18,
  kC64 = 19,  // two F32, the real part first
  // Values of 4 or 6 bits, packed as in safetensors. One element is one byte: a last dimension of 32 F4 values has 16
  // elements (torch.float4_e2m1fn_x2 counts the same way), one of 32 F6 values has 24.
  kF4Packed = 20,  // E2M1
  kF6E2M3Packed = 21,
  kF6E3M2Packed = 22,
};

inline constexpr DType kAllDTypes[] = {
    DType::kF64, DType::kF32,      DType::kF16,          DType::kBF16,        DType::kF8E4M3,     DType::kF8E5M2,
    DType::kI64, DType::kI32,      DType::kI16,          DType::kI8,          DType::kU8,         DType::kBool,
    DType::kU16, DType::kU32,      DType::kU64,          DType::kF8E8M0,      DType::kF8E4M3Fnuz, DType::kF8E5M2Fnuz,
    DType::kC64, DType::kF4Packed, DType::kF6E2M3Packed, DType::kF6E3M2Packed};

// Size of one element in bytes: 1, 2, 4 or 8.
size_t ElementSize(DType dtype);

// Bits of one value of a packed type: 4 or 6. 0 for all others. Packed elements cannot be reordered along the last
// dimension, so they are never transposed.
int PackedBits(DType dtype);

// Whether an element is one real number, that is, neither complex nor packed.
bool IsNumber(DType dtype);

// The safetensors name, such as "BF16" or "F8_E4M3". safetensors counts packed types by values, so these have names of
// their own here, such as "F4_PACKED".
absl::string_view Name(DType dtype);

// Parses a name in upper or lower case. INVALID_ARGUMENT, listing the known names, for any other.
absl::StatusOr<DType> ParseDType(absl::string_view name);

// Converts a value of the protocol. INVALID_ARGUMENT if it is not one of the enumerators.
absl::StatusOr<DType> DTypeFromWire(int value);

// F64, F32, F16 and BF16: the types between which a version's dtype option casts. F8 and smaller types are never cast:
// that would need scales, which no adapter has.
bool IsCastable(DType dtype);

}  // namespace refit
