// What the safetensors format calls a tensor's element type and shape. Packed types differ from ours: the format counts
// their values, we count bytes.
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

// INVALID_ARGUMENT for a part of a packed tensor that does not end where a value ends.
absl::StatusOr<FileType> ToFileType(const TensorSpec& spec);

// Sets dtype and shape of `spec`. INVALID_ARGUMENT for an unknown dtype, listing the known ones, and for packed values
// whose last dimension is no whole number of bytes. The shape must have no negative sizes.
absl::Status FromFileType(const FileType& type, TensorSpec& spec);

}  // namespace refit
