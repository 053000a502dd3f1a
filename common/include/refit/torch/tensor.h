// Converts between at::Tensor and this project's dtypes, shapes and bytes.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "refit/dtype.h"
#include "refit/tensor_spec.h"

namespace refit {

// The DType of an at::ScalarType. Unset for types that weights do not have here: quantised, and complex except C64.
std::optional<DType> DTypeOf(at::ScalarType type);

// Unset if the installed LibTorch does not know the type (F8 before 2.1, unsigned integers before 2.3).
std::optional<at::ScalarType> ScalarTypeOf(DType dtype);

// The type of an at::Tensor that holds such elements: ScalarTypeOf, or else the integer type of the same size (kByte,
// kShort, kInt, kLong).
at::ScalarType StorageTypeOf(DType dtype);

// A tensor and its element type. If LibTorch does not know that type, `data` is of StorageTypeOf. Copies share memory.
struct TypedTensor {
  TypedTensor() = default;
  TypedTensor(at::Tensor tensor) : data(std::move(tensor)), dtype(DTypeOf(data.scalar_type())) {}  // NOLINT: implicit
  TypedTensor(at::Tensor tensor, DType type) : data(std::move(tensor)), dtype(type) {}

  at::Tensor data;
  std::optional<DType> dtype;  // unset: a type that SpecOf rejects
};

// Name, dtype and shape of a tensor on any device, also on meta. INVALID_ARGUMENT, naming the tensor, if it is
// undefined or not strided, has an element type without a DType, or if `dtype` contradicts `data`.
absl::StatusOr<TensorSpec> SpecOf(absl::string_view name, const TypedTensor& tensor);

// Checks that the tensor has all the memory that its shape and strides claim, and that it can be read.
// INVALID_ARGUMENT, with the claimed and the actual memory, if its storage was freed or shrunk, if it wraps another
// tensor and has no storage, or if it is a mapping of a file that was truncated (see MemoryProbe). All functions below
// that read a tensor check this first.
absl::Status CheckMemory(const at::Tensor& tensor);

// Makes a tensor on `bytes`. They must have the length of the spec (INVALID_ARGUMENT), and must not be written through
// the tensor. Keeps `owner` as long as the tensor, or a view of it, lives. Copies if `bytes` are not aligned to their
// elements.
absl::StatusOr<TypedTensor> TensorOnBytes(const TensorSpec& spec, absl::Span<const std::byte> bytes,
                                          std::shared_ptr<const void> owner);

// The bytes of a contiguous tensor in host memory (not a view of negated or conjugated elements). INVALID_ARGUMENT for
// any other tensor. Valid as long as the tensor lives.
absl::StatusOr<absl::Span<const std::byte>> BytesOf(const TypedTensor& tensor);

// The tensor itself if it is contiguous and in host memory; otherwise a copy that is.
absl::StatusOr<TypedTensor> OnHost(const TypedTensor& tensor);

// Casts to `to`, with the same bits as ConvertElements. Returns the tensor itself if it has that dtype.
// INVALID_ARGUMENT unless CanConvert.
absl::StatusOr<TypedTensor> CastTo(const TypedTensor& tensor, DType to);

// Swaps the last two dimensions, makes the result contiguous, and casts it in the same pass, on the tensor's device.
// INVALID_ARGUMENT below rank 2 and unless CanTranspose.
absl::StatusOr<TypedTensor> TransposeLastTwo(const TypedTensor& tensor, DType to);

// All ones, in host memory.
absl::StatusOr<TypedTensor> Ones(DType dtype, const Shape& shape);

}  // namespace refit
