// Recomputes what a refit must give, from the native tensors and LibTorch alone, and compares bit for bit.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "client/native_source.h"
#include "common/tensor/dtype.h"
#include "common/tensor/tensor_spec.h"

namespace refit::cli {

// Used from one thread. Takes memory for a few slabs of a tensor, whatever its size.
class Verifier {
 public:
  // UNIMPLEMENTED in a build without LibTorch; INVALID_ARGUMENT for a bad pattern, or tensors that cannot be converted.
  static absl::StatusOr<std::unique_ptr<Verifier>> Create(std::shared_ptr<const NativeSource> source,
                                                          std::optional<DType> dtype,
                                                          const std::string& exclude_key_regex);
  virtual ~Verifier() = default;

  // Whether these are the tensors expected, in their order; all of them if `whole`. DATA_LOSS naming the first that is
  // not.
  virtual absl::Status CheckManifest(const std::vector<TensorSpec>& tensors, bool whole) = 0;

  // DATA_LOSS, naming tensor and element, if `bytes` are not the tensor's.
  virtual absl::Status CheckTensor(const TensorSpec& tensor, absl::Span<const std::byte> bytes) = 0;
};

}  // namespace refit::cli
