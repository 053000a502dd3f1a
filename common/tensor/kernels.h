// Conversion kernels: cast, transpose, or both at once. They are plain functions on memory that the caller owns. They
// allocate nothing, and may run in several threads if destinations do not overlap. Source and destination may have any
// alignment.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "refit/dtype.h"

namespace refit {

// Whether elements of `from` can be converted to `to`: the types are equal, or both are castable.
bool CanConvert(DType from, DType to);

// Whether a matrix can also be transposed: not if elements are packed.
bool CanTranspose(DType from, DType to);

// Converts and copies `count` elements. Narrowing rounds to nearest even, through F32 where PyTorch goes through float
// (F64 -> F16/BF16), so that results equal `tensor.to(dtype)` bit for bit. NaN becomes the quiet NaN of PyTorch's
// scalar conversion (BF16 0x7FC0; F16 sign | 0x7E00). Requires CanConvert(from, to).
void ConvertElements(DType from, DType to, const std::byte* src, std::byte* dst, int64_t count);

// dst[c * dst_stride + r] = convert(src[r * src_stride + c]) for r < rows, c < cols. Strides count elements. Requires
// CanTranspose(from, to).
void TransposeElements(DType from, DType to, const std::byte* src, int64_t src_stride, std::byte* dst,
                       int64_t dst_stride, int64_t rows, int64_t cols);

// When this many bytes or more are written, the first ones have left the cache before anyone reads them.
inline constexpr uint64_t kPastCacheBytes = 1 << 20;

// Copies bytes without filling the cache, which keeps other data in it. For destinations of kPastCacheBytes or more
// that are not read soon. The ranges must not overlap.
void CopyPastCache(const std::byte* src, std::byte* dst, size_t size);

// Writes the number one of type `dtype` (true for BOOL) `count` times. Not for packed types.
void FillOnes(DType dtype, std::byte* dst, int64_t count);

// Element `index` as a double; F8 and similar types are decoded. NaN unless IsNumber(dtype).
double ElementAsDouble(DType dtype, const std::byte* src, int64_t index);

// The instruction sets for which the kernels were compiled and that this processor has, best first. "AVX3" is AVX-512.
std::vector<std::string> KernelTargets();

// From now on ConvertElements and TransposeElements use this one of KernelTargets(); empty: the best. If there is none
// of this name, returns false and uses the best. For tests and benchmarks; not while kernels run.
bool UseKernelTarget(const std::string& name);

// The ways of transposing large matrices (kernel_choice.h), the usual one first. All give the same bits.
std::vector<std::string> TransposeWays();

// As UseKernelTarget, for one of TransposeWays(); empty: the one that a trial in this process finds to be the fastest.
bool UseTransposeWay(const std::string& name);

// Of TransposeWays(), the one that the trial chose; empty while it lasts. There is one trial for all casts, and one for
// transposing alone.
std::string ChosenTransposeWay(DType from, DType to);

}  // namespace refit
