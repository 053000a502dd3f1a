// Recomputes what a refit must give, from the native tensors and LibTorch alone, and compares bit for bit.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "client/native/native_source.h"
#include "refit/box.h"
#include "refit/dtype.h"
#include "refit/layout_rule.h"

namespace refit::cli {

// What a version is expected to be made from, and how.
struct Expectation {
  std::shared_ptr<const NativeSource> source;
  std::string adapter;
  std::optional<DType> dtype;
  std::string exclude_key_regex;
  std::string keep_dtype_regex;
  // Which parts of its tensors are expected; none: all.
  std::vector<LayoutRule> rules;
};

// Used from one thread. Takes memory for a few slabs of a tensor, whatever its size.
class Verifier {
 public:
  // NOT_FOUND for an unknown adapter; INVALID_ARGUMENT for a bad pattern or rule, or tensors that cannot be converted.
  static absl::StatusOr<std::unique_ptr<Verifier>> Create(Expectation expected);
  virtual ~Verifier() = default;

  // Whether these are the tensors expected, and the parts of them, in their order; all of them if `whole`. DATA_LOSS
  // naming the first that is not.
  virtual absl::Status CheckManifest(const std::vector<TensorPart>& tensors, bool whole) = 0;

  // DATA_LOSS, naming tensor and element, if `bytes` are not the part's.
  virtual absl::Status CheckTensor(const TensorPart& part, absl::Span<const std::byte> bytes) = 0;
};

}  // namespace refit::cli
