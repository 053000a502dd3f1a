// Converts element types and shapes to and from those of the safetensors format. They differ for packed types: the
// format counts values, we count bytes.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "refit/shape.h"
#include "refit/tensor_spec.h"

namespace refit {

struct FileType {
  std::string dtype;
  Shape shape;
};

// INVALID_ARGUMENT for a part of a packed tensor that ends within a value.
absl::StatusOr<FileType> ToFileType(const TensorSpec& spec);

// Sets dtype and shape of `spec`. INVALID_ARGUMENT for an unknown dtype, listing the known ones, and for packed values
// whose last dimension is not a whole number of bytes. The shape must not have negative sizes.
absl::Status FromFileType(const FileType& type, TensorSpec& spec);

}  // namespace refit
