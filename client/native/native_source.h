// Where `refit push` takes native tensors from: a safetensors file, a sharded checkpoint, or values made on the fly.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/safetensors/safetensors.h"
#include "refit/tensor_spec.h"

namespace refit {

// Immutable, thread-safe.
class NativeSource {
 public:
  virtual ~NativeSource() = default;

  virtual const std::vector<TensorSpec>& tensors() const = 0;

  // Bytes [offset, offset + size) of tensors()[index]: either a view of memory that lives as long as the source, or
  // made into `scratch`, which has room for `size` bytes, and then a view of that: an empty one if a file that it is
  // made of was cut meanwhile.
  virtual absl::Span<const std::byte> Read(size_t index, uint64_t offset, uint64_t size,
                                           absl::Span<std::byte> scratch) const = 0;

  // Whether Read gives views of memory that lives as long as the source.
  virtual bool is_resident() const = 0;

  // A line that tells what is not plain about the source; mostly empty.
  virtual std::string note() const { return ""; }
};

// A safetensors file or a checkpoint folder. Errors as refit::Checkpoint::Open.
absl::StatusOr<std::shared_ptr<const NativeSource>> OpenCheckpointSource(const std::string& path,
                                                                         const CheckpointOptions& options = {});
std::shared_ptr<const NativeSource> MakeCheckpointSource(std::shared_ptr<const Checkpoint> checkpoint);

struct SyntheticOptions {
  // "gemma4_26b_a4b" (984 tensors, 53.1 GB) or "gemma4_tiny" (159 tensors).
  std::string model = "gemma4_26b_a4b";
  // Keep the language model's first N layers only. Negative: all.
  int layers = -1;
  // Values depend on seed, tensor name and element index alone, and are the same on every machine. No NaNs, magnitudes
  // below 1.
  uint64_t seed = 1;
  // Element type of the floating-point tensors. Default: as the model has it (BF16).
  std::optional<DType> dtype;
};

// NOT_FOUND, listing the models known, for another name; INVALID_ARGUMENT for layers beyond the model's.
absl::StatusOr<std::shared_ptr<const NativeSource>> OpenSyntheticSource(const SyntheticOptions& options);

}  // namespace refit
