// Verifies a pulled version: computes the expected bytes from the native tensors with LibTorch, and compares bit for
// bit.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "client/native/native_source.h"
#include "common/adapters/plan.h"
#include "refit/box.h"
#include "refit/dtype.h"
#include "refit/layout_rule.h"

namespace refit::cli {

// The native tensors and options that a version should be made from.
struct Expectation {
  std::shared_ptr<const NativeSource> source;
  std::string adapter;
  AdapterOptions adapter_options;
  std::optional<DType> dtype;
  std::string exclude_key_regex;
  std::string keep_dtype_regex;
  bool keep_family_dtypes = true;
  // Which parts of the tensors are expected. Empty: all.
  std::vector<LayoutRule> rules;
};

// Call it from one thread. It needs memory for a few slabs of a tensor, however large the tensor is.
class Verifier {
 public:
  // NOT_FOUND for an unknown adapter; INVALID_ARGUMENT for a bad pattern or rule, or tensors that cannot be converted.
  static absl::StatusOr<std::unique_ptr<Verifier>> Create(Expectation expected);
  virtual ~Verifier() = default;

  // Checks that the tensors and their parts are the expected ones, in the same order. If `whole`, all must be there.
  // DATA_LOSS names the first that is not expected.
  virtual absl::Status CheckManifest(const std::vector<TensorPart>& tensors, bool whole) = 0;

  // DATA_LOSS, naming tensor and element, if `bytes` are not the expected bytes of the part.
  virtual absl::Status CheckTensor(const TensorPart& part, absl::Span<const std::byte> bytes) = 0;
};

}  // namespace refit::cli
