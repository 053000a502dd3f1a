#include "common/tensor/kernels.h"

#include <bit>
#include <cstring>
#include <limits>

#include "common/tensor/float_bits.h"
#include "common/tensor/unaligned.h"

namespace refit {
namespace {

// The number one, in the element's bytes.
uint64_t OneBits(DType dtype) {
  switch (dtype) {
    case DType::kF64:
      return std::bit_cast<uint64_t>(1.0);
    case DType::kF32:
      return std::bit_cast<uint32_t>(1.0F);
    case DType::kF16:
      return 0x3C00;
    case DType::kBF16:
      return 0x3F80;
    case DType::kF8E4M3:
      return 0x38;
    case DType::kF8E5M2:
      return 0x3C;
    case DType::kF8E8M0:
      return 0x7F;
    case DType::kF8E4M3Fnuz:
    case DType::kF8E5M2Fnuz:
      return 0x40;
    case DType::kC64:
      return std::bit_cast<uint32_t>(1.0F);
    default:
      return 1;
  }
}

}  // namespace

bool CanTranspose(DType from, DType to) { return CanConvert(from, to) && PackedBits(from) == 0; }

bool CanConvert(DType from, DType to) { return from == to || (IsCastable(from) && IsCastable(to)); }

void FillOnes(DType dtype, std::byte* dst, int64_t count) {
  const size_t size = ElementSize(dtype);
  const uint64_t one = OneBits(dtype);
  for (int64_t i = 0; i < count; ++i) std::memcpy(dst + i * static_cast<int64_t>(size), &one, size);
}

double ElementAsDouble(DType dtype, const std::byte* src, int64_t index) {
  const std::byte* element = src + index * static_cast<int64_t>(ElementSize(dtype));
  switch (dtype) {
    case DType::kF64:
      return Load<double>(element);
    case DType::kF32:
      return Load<float>(element);
    case DType::kF16:
      return DecodeF16(Load<uint16_t>(element));
    case DType::kBF16:
      return DecodeBF16(Load<uint16_t>(element));
    case DType::kF8E4M3:
      return DecodeF8E4M3(Load<uint8_t>(element));
    case DType::kF8E5M2:
      return DecodeF8E5M2(Load<uint8_t>(element));
    case DType::kI64:
      return static_cast<double>(Load<int64_t>(element));
    case DType::kI32:
      return Load<int32_t>(element);
    case DType::kI16:
      return Load<int16_t>(element);
    case DType::kI8:
      return Load<int8_t>(element);
    case DType::kU8:
      return Load<uint8_t>(element);
    case DType::kBool:
      return Load<uint8_t>(element) != 0 ? 1 : 0;
    case DType::kU16:
      return Load<uint16_t>(element);
    case DType::kU32:
      return Load<uint32_t>(element);
    case DType::kU64:
      return static_cast<double>(Load<uint64_t>(element));
    case DType::kF8E8M0:
      return DecodeF8E8M0(Load<uint8_t>(element));
    case DType::kF8E4M3Fnuz:
      return DecodeF8E4M3Fnuz(Load<uint8_t>(element));
    case DType::kF8E5M2Fnuz:
      return DecodeF8E5M2Fnuz(Load<uint8_t>(element));
    case DType::kC64:
    case DType::kF4Packed:
    case DType::kF6E2M3Packed:
    case DType::kF6E3M2Packed:
      break;
  }
  return std::numeric_limits<double>::quiet_NaN();
}

}  // namespace refit
