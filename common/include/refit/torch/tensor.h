// Between at::Tensor and the dtype, shape and bytes that everything else speaks.
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

// What stands for an at::ScalarType. Unset for types that no weights have here: quantised, complex but for C64.
std::optional<DType> DTypeOf(at::ScalarType type);

// Unset where the LibTorch at hand does not know the type (F8 before 2.1, unsigned integers before 2.3).
std::optional<at::ScalarType> ScalarTypeOf(DType dtype);

// The type of an at::Tensor that holds such elements: ScalarTypeOf, or the integer type of the same size in its
// place (kByte, kShort, kInt, kLong).
at::ScalarType StorageTypeOf(DType dtype);

// A tensor, and what its elements are even where LibTorch does not know their type: then `data` is of
// StorageTypeOf. Copies share memory.
struct TypedTensor {
  TypedTensor() = default;
  TypedTensor(at::Tensor tensor) : data(std::move(tensor)), dtype(DTypeOf(data.scalar_type())) {}  // NOLINT: implicit
  TypedTensor(at::Tensor tensor, DType type) : data(std::move(tensor)), dtype(type) {}

  at::Tensor data;
  std::optional<DType> dtype;  // unset: none that SpecOf accepts
};

// Name, dtype and shape, of a tensor on any device, also on meta. INVALID_ARGUMENT, naming the tensor, if it is
// undefined or not strided, has an element type that no DType stands for, or `dtype` contradicts `data`.
absl::StatusOr<TensorSpec> SpecOf(absl::string_view name, const TypedTensor& tensor);

// Whether the tensor has all the memory that its shape and strides claim, and that can be read: INVALID_ARGUMENT,
// saying what it claims and what it has, if its storage was freed or shrunk, if it wraps another tensor and has none,
// or for a mapping of a file that was truncated (see MemoryProbe). All below that read a tensor look first.
absl::Status CheckMemory(const at::Tensor& tensor);

// A tensor on `bytes`, which must be as long as the spec says (INVALID_ARGUMENT) and must not be written to through it.
// Keeps `owner` while it, or any view of it, lives. Copies where `bytes` are not aligned to their elements.
absl::StatusOr<TypedTensor> TensorOnBytes(const TensorSpec& spec, absl::Span<const std::byte> bytes,
                                          std::shared_ptr<const void> owner);

// The elements of a contiguous tensor in host memory (not a view of negated or conjugated ones); INVALID_ARGUMENT for
// any other. Valid while the tensor lives.
absl::StatusOr<absl::Span<const std::byte>> BytesOf(const TypedTensor& tensor);

// The same tensor if it is contiguous and in host memory already; otherwise a copy that is.
absl::StatusOr<TypedTensor> OnHost(const TypedTensor& tensor);

// The same elements as `to`, bit for bit what ConvertElements gives; the same tensor if it is of that dtype already.
// INVALID_ARGUMENT unless CanConvert.
absl::StatusOr<TypedTensor> CastTo(const TypedTensor& tensor, DType to);

// The last two dimensions swapped, contiguous, and cast in the same pass. INVALID_ARGUMENT below rank 2 and unless
// CanTranspose. On the tensor's device.
absl::StatusOr<TypedTensor> TransposeLastTwo(const TypedTensor& tensor, DType to);

// All ones, in host memory.
absl::StatusOr<TypedTensor> Ones(DType dtype, const Shape& shape);

}  // namespace refit
