#include "tests/bench/kernels_torch.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/from_blob.h>

#include "refit/torch/tensor.h"

namespace refit {

bool HasTorch() { return true; }

void TorchTranspose(DType from, DType to, const std::vector<int64_t>& shape, const std::byte* source,
                    std::byte* target) {
  at::NoGradGuard no_grad;
  at::set_num_threads(1);
  const at::Tensor native = at::from_blob(const_cast<std::byte*>(source), shape, StorageTypeOf(from));
  at::Tensor hf = at::from_blob(target, {shape[0], shape[2], shape[1]}, StorageTypeOf(to));
  hf.copy_(native.transpose(-1, -2));
}

}  // namespace refit
