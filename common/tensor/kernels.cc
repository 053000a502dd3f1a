#include "common/tensor/kernels.h"

namespace refit {

bool CanConvert(DType from, DType to) { return from == to || (IsCastable(from) && IsCastable(to)); }
void ConvertElements(DType, DType, const std::byte*, std::byte*, int64_t) {}
void TransposeElements(DType, DType, const std::byte*, int64_t, std::byte*, int64_t, int64_t, int64_t) {}
void FillOnes(DType, std::byte*, int64_t) {}
double ElementAsDouble(DType, const std::byte*, int64_t) { return 0; }

}  // namespace refit
