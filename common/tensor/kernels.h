// Conversion kernels: cast, transpose, both at once. Plain functions on memory that the caller owns; they allocate
// nothing, and may run on several threads as long as destinations do not overlap. Source and destination may have any
// alignment.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "refit/dtype.h"

namespace refit {

// Whether elements of `from` can be written as `to`: equal types, or both castable.
bool CanConvert(DType from, DType to);

// Whether a matrix can be transposed too: not of packed elements.
bool CanTranspose(DType from, DType to);

// Copies `count` elements, converting each. Narrowing rounds to nearest even; through F32 where PyTorch goes
// through float (F64 -> F16/BF16), so that results equal `tensor.to(dtype)` bit for bit. NaN becomes the quiet NaN that
// PyTorch's scalar conversion gives (BF16 0x7FC0; F16 sign | 0x7E00). Needs CanConvert(from, to).
void ConvertElements(DType from, DType to, const std::byte* src, std::byte* dst, int64_t count);

// dst[c * dst_stride + r] = convert(src[r * src_stride + c]) for r < rows, c < cols. Strides count elements.
// Needs CanTranspose(from, to).
void TransposeElements(DType from, DType to, const std::byte* src, int64_t src_stride, std::byte* dst,
                       int64_t dst_stride, int64_t rows, int64_t cols);

// Of memory of this many bytes and more, what is written first has left the cache before anybody reads it.
inline constexpr uint64_t kPastCacheBytes = 1 << 20;

// Copies bytes past the cache, which then has room for others: for destinations of kPastCacheBytes and more that nobody
// reads at once. Must not overlap.
void CopyPastCache(const std::byte* src, std::byte* dst, size_t size);

// Writes `count` times the number one as `dtype` has it (true for BOOL). Not for packed types.
void FillOnes(DType dtype, std::byte* dst, int64_t count);

// Element `index` as a double; F8 and the like decoded. NaN unless IsNumber(dtype).
double ElementAsDouble(DType dtype, const std::byte* src, int64_t index);

// The instruction sets that the kernels were compiled for and that this processor has, the best first: "AVX3" is
// AVX-512.
std::vector<std::string> KernelTargets();

// From now on ConvertElements and TransposeElements use this one of KernelTargets(); empty: the best. False, and the
// best, if there is no such one. For tests and benchmarks; not while kernels run.
bool UseKernelTarget(const std::string& name);

}  // namespace refit
