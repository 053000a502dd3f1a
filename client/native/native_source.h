// Sources of native tensors for `refit push`: a safetensors file, a sharded checkpoint, or synthetic values.
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

  // Reads bytes [offset, offset + size) of tensors()[index]. The result is a view of memory that lives as long as the
  // source, or the bytes are written to `scratch`, which has room for `size` bytes, and the result is a view of that.
  // It is empty if a file of the source was truncated meanwhile.
  virtual absl::Span<const std::byte> Read(size_t index, uint64_t offset, uint64_t size,
                                           absl::Span<std::byte> scratch) const = 0;

  // Whether Read returns views of memory that lives as long as the source.
  virtual bool is_resident() const = 0;

  // A line about anything unusual in the source. Mostly empty.
  virtual std::string note() const { return ""; }
};

// Opens a safetensors file or a checkpoint folder. Errors as refit::Checkpoint::Open.
absl::StatusOr<std::shared_ptr<const NativeSource>> OpenCheckpointSource(const std::string& path,
                                                                         const CheckpointOptions& options = {});
std::shared_ptr<const NativeSource> MakeCheckpointSource(std::shared_ptr<const Checkpoint> checkpoint);

// The most steps that keep every value finite and away from zero without further rules: they move a value by 2000 units
// in the last place at most. At step 0 each is at least 8192 from zero (F16; more for others), and further from
// infinity.
inline constexpr uint32_t kMostSyntheticSteps = 1000;

struct SyntheticOptions {
  // "gemma4_26b_a4b" (984 tensors, 53.1 GB) or "gemma4_tiny" (159 tensors).
  std::string model = "gemma4_26b_a4b";
  // Keeps only the first N layers of the language model. Negative: all.
  int layers = -1;
  // Values depend only on seed, tensor name, element index, step and change. They are the same on every machine. There
  // are no NaNs, and magnitudes are below 1 at step 0.
  uint64_t seed = 1;
  // Training steps that these values are after those of step 0. At each step, `change` of the elements (a fraction, 0
  // to 1, in units of 2^-30) of every F64, F32, F16 and BF16 tensor moves by -2, -1, +1 or +2 on its bit pattern as an
  // integer, equally likely. Tensors of other types stay as they are.
  uint32_t step = 0;
  double change = 0.01;
  // Element type of the floating-point tensors. Default: the model's own (BF16).
  std::optional<DType> dtype;
};

// NOT_FOUND, listing the known models, for an unknown name; INVALID_ARGUMENT for more layers than the model has, more
// than kMostSyntheticSteps, or a change that is no fraction.
absl::StatusOr<std::shared_ptr<const NativeSource>> OpenSyntheticSource(const SyntheticOptions& options);

}  // namespace refit
