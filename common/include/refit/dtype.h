// Element types of tensors: those of the safetensors format. What no kernel needs to know is passed as bytes.
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
  kU16 = 13,
  kU32 = 14,
  kU64 = 15,
  kF8E8M0 = 16,  // a power of two: the block scales of MXFP8 and MXFP4
  kF8E4M3Fnuz = 17,
  kF8E5M2Fnuz = 18,
  kC64 = 19,  // two F32, the real part first
  // Packed values of 4 or 6 bits, as safetensors packs them. One element is one byte: a last dimension of 32 F4 values
  // has 16 (torch.float4_e2m1fn_x2 counts the same way), of 32 F6 values 24.
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

// Bits of one value of a packed type: 4 or 6. 0 for all others. Packed elements cannot change places along the last
// dimension: they are never transposed.
int PackedBits(DType dtype);

// Whether an element is one real number: neither complex nor packed.
bool IsNumber(DType dtype);

// The safetensors name, such as "BF16" or "F8_E4M3". Packed types, which safetensors counts by values, have names of
// their own, such as "F4_PACKED".
absl::string_view Name(DType dtype);

// Reads a name, in any case. INVALID_ARGUMENT, listing the names known, if it is none.
absl::StatusOr<DType> ParseDType(absl::string_view name);

// Reads a wire value. INVALID_ARGUMENT if it is none of the enumerators.
absl::StatusOr<DType> DTypeFromWire(int value);

// F64, F32, F16 and BF16: the types that a version's dtype option casts between. F8 tensors and smaller ones are never
// cast: a cast would need scales that no adapter has.
bool IsCastable(DType dtype);

}  // namespace refit
