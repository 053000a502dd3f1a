#include <ATen/Functions.h>
#include <c10/core/GradMode.h>
#include <torch/version.h>

#include <cstdint>
#include <cstring>
#include <vector>

#include "refit/torch/tensor.h"

// 203: LibTorch 2.3.
#define REFIT_TORCH_VERSION (TORCH_VERSION_MAJOR * 100 + TORCH_VERSION_MINOR)

#include "absl/strings/str_cat.h"
#include "common/adapters/native_range_writer.h"
#include "common/adapters/torch_errors.h"
#include "common/tensor/kernels.h"
#include "refit/memory_probe.h"

namespace refit {
namespace {

Shape ShapeOf(at::IntArrayRef sizes) { return {sizes.begin(), sizes.end()}; }

struct TypePair {
  DType dtype;
  at::ScalarType scalar_type;
};

constexpr TypePair kTypes[] = {
    {DType::kF64, at::kDouble},
    {DType::kF32, at::kFloat},
    {DType::kF16, at::kHalf},
    {DType::kBF16, at::kBFloat16},
    {DType::kC64, at::kComplexFloat},
#if REFIT_TORCH_VERSION >= 201
    {DType::kF8E4M3, at::ScalarType::Float8_e4m3fn},
    {DType::kF8E5M2, at::ScalarType::Float8_e5m2},
#endif
#if REFIT_TORCH_VERSION >= 203
    {DType::kF8E4M3Fnuz, at::ScalarType::Float8_e4m3fnuz},
    {DType::kF8E5M2Fnuz, at::ScalarType::Float8_e5m2fnuz},
    {DType::kU16, at::ScalarType::UInt16},
    {DType::kU32, at::ScalarType::UInt32},
    {DType::kU64, at::ScalarType::UInt64},
#endif
#if REFIT_TORCH_VERSION >= 208
    {DType::kF8E8M0, at::ScalarType::Float8_e8m0fnu},
    {DType::kF4Packed, at::ScalarType::Float4_e2m1fn_x2},
#endif
    {DType::kI64, at::kLong},
    {DType::kI32, at::kInt},
    {DType::kI16, at::kShort},
    {DType::kI8, at::kChar},
    {DType::kU8, at::kByte},
    {DType::kBool, at::kBool},
};

// The integer type of the same width. Moving elements as integers keeps every bit, whatever the type.
at::ScalarType BitsType(DType dtype) {
  switch (ElementSize(dtype)) {
    case 8:
      return at::kLong;
    case 4:
      return at::kInt;
    case 2:
      return at::kShort;
    default:
      return at::kByte;
  }
}

std::byte* MutableBytes(const at::Tensor& tensor) { return static_cast<std::byte*>(tensor.data_ptr()); }

at::Tensor Empty(DType dtype, c10::IntArrayRef shape) {
  return at::empty(shape, at::TensorOptions().dtype(StorageTypeOf(dtype)));
}

// The elements in row-major order in host memory, with every bit kept.
at::Tensor ContiguousOnHost(const at::Tensor& tensor, DType dtype) {
  const at::NoGradGuard no_grad;
  if (tensor.is_neg()) return ContiguousOnHost(tensor.detach().resolve_neg(), dtype);
  if (tensor.is_conj()) return ContiguousOnHost(tensor.detach().resolve_conj(), dtype);
  if (tensor.is_contiguous() && tensor.device().is_cpu()) return tensor;
  return tensor.detach().view(BitsType(dtype)).contiguous().cpu().view(tensor.scalar_type());
}

absl::Status CheckConversion(const TypedTensor& tensor, DType to, size_t least_rank) {
  absl::StatusOr<TensorSpec> spec = SpecOf("to convert", tensor);
  if (!spec.ok()) return spec.status();
  if (absl::Status status = CheckMemory(tensor.data); !status.ok()) return status;
  if (spec->shape.size() < least_rank) {
    return absl::InvalidArgumentError(
        absl::StrCat("a tensor of shape ", ToString(spec->shape), " has no last two dimensions to swap"));
  }
  if (least_rank > 0 && !CanTranspose(spec->dtype, spec->dtype)) {
    return absl::InvalidArgumentError(
        absl::StrCat(Name(spec->dtype), ": packed values cannot be transposed; expected one value an element"));
  }
  if (!CanConvert(spec->dtype, to)) {
    return absl::InvalidArgumentError(absl::StrCat("cannot cast ", Name(spec->dtype), " to ", Name(to)));
  }
  return absl::OkStatus();
}

// Bytes of the storage that the tensor uses, from first to last. For a tensor with elements.
uint64_t ClaimedBytes(const at::Tensor& tensor) {
  int64_t last = tensor.storage_offset();
  for (int64_t d = 0; d < tensor.dim(); ++d) last += (tensor.size(d) - 1) * tensor.stride(d);
  return (static_cast<uint64_t>(last) + 1) * tensor.element_size();
}

absl::Status CheckStorage(const at::Tensor& tensor) {
  constexpr char kNoMemory[] = "it has no memory of its own, as tensors that wrap others have none";
  if (tensor.is_meta()) return absl::InvalidArgumentError("it is on meta and has no data");
  // Tensors of other devices may have no storage. Copying from the device checks them.
  if (!tensor.is_cpu() && !tensor.is_cuda()) return absl::OkStatus();
  if (!tensor.has_storage()) return absl::InvalidArgumentError(kNoMemory);
  if (tensor.numel() == 0) return absl::OkStatus();
  const uint64_t claimed = ClaimedBytes(tensor);
  const uint64_t has = tensor.storage().nbytes();
  if (claimed > has) {
    return absl::InvalidArgumentError(
        absl::StrCat(c10::toString(tensor.scalar_type()), " ", ToString(ShapeOf(tensor.sizes())), " with strides ",
                     ToString(ShapeOf(tensor.strides())), " from element ", tensor.storage_offset(), " on needs ",
                     claimed, " bytes, but its storage has ", has, ": was it freed, or shrunk?"));
  }
  if (tensor.data_ptr() == nullptr) return absl::InvalidArgumentError(kNoMemory);
  if (!tensor.is_cpu()) return absl::OkStatus();
  const uint64_t begin = tensor.storage_offset() * tensor.element_size();
  return MemoryProbe().CheckReadable({MutableBytes(tensor), static_cast<size_t>(claimed - begin)});
}

// Uses the device's own kernels, for tensors outside of host memory.
TypedTensor CastOnDevice(const at::Tensor& tensor, DType to) {
  const at::NoGradGuard no_grad;
  return {tensor.detach().to(StorageTypeOf(to)), to};
}

}  // namespace

std::optional<DType> DTypeOf(at::ScalarType type) {
  for (const TypePair& pair : kTypes) {
    if (pair.scalar_type == type) return pair.dtype;
  }
  return std::nullopt;
}

std::optional<at::ScalarType> ScalarTypeOf(DType dtype) {
  for (const TypePair& pair : kTypes) {
    if (pair.dtype == dtype) return pair.scalar_type;
  }
  return std::nullopt;
}

at::ScalarType StorageTypeOf(DType dtype) { return ScalarTypeOf(dtype).value_or(BitsType(dtype)); }

absl::Status CheckMemory(const at::Tensor& tensor) {
  const absl::Status status = CatchTorchErrors("its memory", [&] { return CheckStorage(tensor); });
  // An unknown kind of tensor may throw anything when it is queried.
  return absl::IsInternal(status) ? absl::InvalidArgumentError(status.message()) : status;
}

absl::StatusOr<TensorSpec> SpecOf(absl::string_view name, const TypedTensor& tensor) {
  const auto invalid = [&](absl::string_view what) {
    return absl::InvalidArgumentError(absl::StrCat("tensor ", Printable(name), " ", what));
  };
  if (!tensor.data.defined()) return invalid("is undefined");
  if (tensor.data.layout() != at::kStrided || tensor.data.is_nested()) return invalid("is not strided");
  const char* type = c10::toString(tensor.data.scalar_type());
  if (!tensor.dtype.has_value()) return invalid(absl::StrCat("has element type ", type, ", which is not supported"));
  const bool is_stand_in = tensor.data.scalar_type() == at::kByte && ElementSize(*tensor.dtype) == 1;
  if (tensor.data.scalar_type() != StorageTypeOf(*tensor.dtype) && !is_stand_in) {
    return invalid(absl::StrCat("is said to be ", Name(*tensor.dtype), ", but its element type is ", type));
  }
  return CatchTorchErrors(absl::StrCat("tensor ", Printable(name)), [&]() -> absl::StatusOr<TensorSpec> {
    return TensorSpec{std::string(name), *tensor.dtype, ShapeOf(tensor.data.sizes())};
  });
}

absl::StatusOr<TypedTensor> TensorOnBytes(const TensorSpec& spec, absl::Span<const std::byte> bytes,
                                          std::shared_ptr<const void> owner) {
  absl::StatusOr<uint64_t> size = ByteCount(spec.dtype, spec.shape);
  if (!size.ok()) return size.status();
  if (bytes.size() != *size) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor ", spec.ToString(), " has ", *size, " bytes, got ", bytes.size()));
  }
  return CatchTorchErrors(spec.ToString(), [&]() -> absl::StatusOr<TypedTensor> {
    const bool is_aligned = reinterpret_cast<uintptr_t>(bytes.data()) % ElementSize(spec.dtype) == 0;
    if (bytes.empty() || !is_aligned) {
      at::Tensor copy = Empty(spec.dtype, spec.shape);
      if (!bytes.empty()) std::memcpy(copy.data_ptr(), bytes.data(), bytes.size());
      return TypedTensor(std::move(copy), spec.dtype);
    }
    // LibTorch has no read-only tensors. The contract forbids writing.
    void* data = const_cast<std::byte*>(bytes.data());
    const auto release = [owner = std::move(owner)](void*) {};
    return TypedTensor(at::from_blob(data, spec.shape, release, at::TensorOptions().dtype(StorageTypeOf(spec.dtype))),
                       spec.dtype);
  });
}

absl::StatusOr<absl::Span<const std::byte>> BytesOf(const TypedTensor& tensor) {
  return CatchTorchErrors("bytes of a tensor", [&]() -> absl::StatusOr<absl::Span<const std::byte>> {
    if (!tensor.data.defined() || !tensor.data.device().is_cpu() || !tensor.data.is_contiguous() ||
        tensor.data.is_neg() || tensor.data.is_conj()) {
      return absl::InvalidArgumentError("expected a contiguous tensor in host memory");
    }
    if (absl::Status status = CheckMemory(tensor.data); !status.ok()) return status;
    return absl::Span<const std::byte>(MutableBytes(tensor.data), tensor.data.nbytes());
  });
}

absl::StatusOr<TypedTensor> OnHost(const TypedTensor& tensor) {
  absl::StatusOr<TensorSpec> spec = SpecOf("to copy", tensor);
  if (!spec.ok()) return spec.status();
  if (absl::Status status = CheckMemory(tensor.data); !status.ok()) return status;
  return CatchTorchErrors("copying a tensor", [&]() -> absl::StatusOr<TypedTensor> {
    return TypedTensor(ContiguousOnHost(tensor.data, spec->dtype), spec->dtype);
  });
}

absl::StatusOr<TypedTensor> CastTo(const TypedTensor& tensor, DType to) {
  if (tensor.dtype == to) return tensor;
  if (absl::Status status = CheckConversion(tensor, to, 0); !status.ok()) return status;
  return CatchTorchErrors("casting a tensor", [&]() -> absl::StatusOr<TypedTensor> {
    if (!tensor.data.device().is_cpu()) return CastOnDevice(tensor.data, to);
    const at::Tensor source = ContiguousOnHost(tensor.data, *tensor.dtype);
    at::Tensor result = Empty(to, source.sizes());
    ConvertElements(*tensor.dtype, to, MutableBytes(source), MutableBytes(result), source.numel());
    return TypedTensor(std::move(result), to);
  });
}

absl::StatusOr<TypedTensor> TransposeLastTwo(const TypedTensor& tensor, DType to) {
  if (absl::Status status = CheckConversion(tensor, to, 2); !status.ok()) return status;
  return CatchTorchErrors("transposing a tensor", [&]() -> absl::StatusOr<TypedTensor> {
    const at::NoGradGuard no_grad;
    const at::Tensor swapped = tensor.data.detach().transpose(-2, -1);
    if (!tensor.data.device().is_cpu()) return CastOnDevice(swapped.contiguous(), to);
    // The tensor is a transposed view of the wanted result, as some trainers produce.
    if (swapped.is_contiguous()) return CastTo(TypedTensor(swapped, *tensor.dtype), to);

    const at::Tensor source = ContiguousOnHost(tensor.data, *tensor.dtype);
    at::Tensor result = Empty(to, swapped.sizes());
    const TensorSpec native = {"", *tensor.dtype, ShapeOf(source.sizes())};
    const PlannedOutput output = {{"", to, ShapeOf(swapped.sizes())}, Transform::kTransposeLastTwo};
    WriteNativeRange(TensorPart::Whole(native), output, 0, {MutableBytes(source), source.nbytes()},
                     MutableBytes(result));
    return TypedTensor(std::move(result), to);
  });
}

absl::StatusOr<TypedTensor> Ones(DType dtype, const Shape& shape) {
  return CatchTorchErrors("making ones", [&]() -> absl::StatusOr<TypedTensor> {
    at::Tensor result = Empty(dtype, shape);
    FillOnes(dtype, MutableBytes(result), result.numel());
    return TypedTensor(std::move(result), dtype);
  });
}

}  // namespace refit
