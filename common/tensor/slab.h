// Memory for very many small tensors at once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "common/tensor/buffer.h"

namespace refit {

// Cuts small buffers from larger ones, since getting and giving back each of its own costs more than filling it. What
// was cut together is freed together: for tensors of one version, which come and go as one. Not thread-safe; its
// buffers may outlive it.
class Slab {
 public:
  using Source = absl::FunctionRef<absl::StatusOr<std::shared_ptr<Buffer>>(size_t size)>;

  // A buffer of `size` bytes: a piece of one from `source`, or all of one if it is not small. Errors as the source's.
  absl::StatusOr<std::shared_ptr<Buffer>> Get(size_t size, Source source);

 private:
  std::shared_ptr<Buffer> block_;  // the one that is being cut
  size_t used_ = 0;                // of it
};

}  // namespace refit
