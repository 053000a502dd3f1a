#include "common/safetensors/file_type.h"

#include <cstdint>
#include <limits>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "common/tensor/dtype_names.h"
#include "refit/dtype.h"

namespace refit {
namespace {

constexpr absl::string_view kPacked = "_PACKED";

absl::string_view FileName(DType dtype) {
  absl::string_view name = Name(dtype);
  if (PackedBits(dtype) != 0) name.remove_suffix(kPacked.size());
  return name;
}

absl::StatusOr<DType> ParseFileName(absl::string_view name) {
  for (const DType dtype : kAllDTypes) {
    if (FileName(dtype) == name) return dtype;
  }
  return UnknownDType(name, FileName);
}

// Converts the last dimension from units of `from` bits to units of `to` bits.
absl::Status Recount(int64_t from, int64_t to, absl::string_view whose, Shape& shape) {
  const bool fits = !shape.empty() && shape.back() <= std::numeric_limits<int64_t>::max() / from;
  const int64_t bits = fits ? shape.back() * from : 0;
  if (!fits || bits % to != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        whose, " ", ToString(shape), ": the last dimension is no whole number of ", to == 8 ? "bytes" : "values"));
  }
  shape.back() = bits / to;
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<FileType> ToFileType(const TensorSpec& spec) {
  FileType type = {std::string(FileName(spec.dtype)), spec.shape};
  if (const int bits = PackedBits(spec.dtype); bits != 0) {
    if (absl::Status status =
            Recount(8, bits, absl::StrCat("tensor ", Printable(spec.name), " ", Name(spec.dtype)), type.shape);
        !status.ok())
      return status;
  }
  return type;
}

absl::Status FromFileType(const FileType& type, TensorSpec& spec) {
  const absl::StatusOr<DType> dtype = ParseFileName(type.dtype);
  if (!dtype.ok()) return dtype.status();
  spec.dtype = *dtype;
  spec.shape = type.shape;
  if (const int bits = PackedBits(*dtype); bits != 0) return Recount(bits, 8, type.dtype, spec.shape);
  return absl::OkStatus();
}

}  // namespace refit
