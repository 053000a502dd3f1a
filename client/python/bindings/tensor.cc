#include "client/python/bindings/tensor.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/python/bindings/dlpack.h"
#include "client/python/bindings/gil.h"
#include "client/python/bindings/python_owner.h"
#include "client/python/bindings/status_error.h"
#include "common/wire/digest.h"
#include "refit/memory_probe.h"

namespace refit::python {
namespace {

namespace py = pybind11;

DLDataType ToDLPack(DType dtype) {
  const auto bits = static_cast<uint8_t>(8 * ElementSize(dtype));
  switch (dtype) {
    case DType::kF64:
    case DType::kF32:
    case DType::kF16:
      return {kDLFloat, bits, 1};
    case DType::kBF16:
      return {kDLBfloat, bits, 1};
    case DType::kF8E4M3:
      return {kDLFloat8E4M3FN, bits, 1};
    case DType::kF8E5M2:
      return {kDLFloat8E5M2, bits, 1};
    case DType::kI64:
    case DType::kI32:
    case DType::kI16:
    case DType::kI8:
      return {kDLInt, bits, 1};
    case DType::kU64:
    case DType::kU32:
    case DType::kU16:
    case DType::kU8:
      return {kDLUInt, bits, 1};
    case DType::kBool:
      return {kDLBool, bits, 1};
    case DType::kF8E8M0:
      return {kDLFloat8E8M0FNU, bits, 1};
    case DType::kF8E4M3Fnuz:
      return {kDLFloat8E4M3FNUZ, bits, 1};
    case DType::kF8E5M2Fnuz:
      return {kDLFloat8E5M2FNUZ, bits, 1};
    case DType::kC64:
      return {kDLComplex, bits, 1};
    case DType::kF4Packed:
      return {kDLFloat4E2M1FN, 4, 2};
    case DType::kF6E2M3Packed:
    case DType::kF6E3M2Packed:
      return {kDLUInt, bits, 1};  // as bytes: DLPack packs F6 in another way
  }
  return {};
}

std::optional<DType> FromDLPack(const DLDataType& type) {
  for (const DType dtype : kAllDTypes) {
    const DLDataType known = ToDLPack(dtype);
    if (known.code == type.code && known.bits == type.bits && known.lanes == type.lanes) return dtype;
  }
  return std::nullopt;
}

// The data of a capsule that we export.
struct Export {
  DLManagedTensor managed{};
  std::vector<int64_t> shape;
  std::shared_ptr<const void> owner;
};

void DeleteExport(DLManagedTensor* managed) {
  const std::unique_ptr<Export> ends(static_cast<Export*>(managed->context));
}

void DeleteCapsule(PyObject* capsule) {
  if (PyCapsule_IsValid(capsule, kDLPackName) == 0) return;  // a consumer has taken it
  auto* managed = static_cast<DLManagedTensor*>(PyCapsule_GetPointer(capsule, kDLPackName));
  managed->deleter(managed);
}

py::object MakeCapsule(const Tensor& tensor, DLDataType type, std::vector<int64_t> shape) {
  auto made = std::make_unique<Export>();
  made->shape = std::move(shape);
  made->owner = tensor.owner;
  DLTensor& view = made->managed.tensor;
  view.data = tensor.bytes.data();
  view.device = {kDLCPU, 0};
  view.ndim = static_cast<int32_t>(made->shape.size());
  view.dtype = type;
  view.shape = made->shape.data();
  made->managed.context = made.get();
  made->managed.deleter = &DeleteExport;
  PyObject* capsule = PyCapsule_New(&made->managed, kDLPackName, &DeleteCapsule);
  if (capsule == nullptr) throw py::error_already_set();
  (void)made.release();  // owned by the capsule now
  return py::reinterpret_steal<py::object>(capsule);
}

py::object DLPackOf(const Tensor& tensor) {
  return MakeCapsule(tensor, ToDLPack(tensor.part.tensor.dtype), ToVector(tensor.part.box.sizes));
}

// For consumers that accept bytes but do not know all element types.
py::object DLPackOfBytes(const Tensor& tensor) {
  return MakeCapsule(tensor, ToDLPack(DType::kU8), {static_cast<int64_t>(tensor.bytes.size())});
}

bool IsRowMajor(const DLTensor& view) {
  if (view.strides == nullptr) return true;
  int64_t expected = 1;
  for (int32_t d = view.ndim - 1; d >= 0; --d) {
    if (view.shape[d] != 1 && view.strides[d] != expected) return false;
    expected *= view.shape[d];
  }
  return true;
}

// The data of a capsule of either version.
struct Exchanged {
  const DLTensor& tensor;
  bool is_read_only;
};

Exchanged OpenCapsule(const py::capsule& capsule) {
  PyObject* object = capsule.ptr();
  if (PyCapsule_IsValid(object, kDLPackName) != 0) {
    return {static_cast<DLManagedTensor*>(PyCapsule_GetPointer(object, kDLPackName))->tensor, false};
  }
  if (PyCapsule_IsValid(object, kDLPackVersionedName) == 0) throw py::type_error("not an unused DLPack capsule");
  const auto& managed = *static_cast<DLManagedTensorVersioned*>(PyCapsule_GetPointer(object, kDLPackVersionedName));
  if (managed.version.major != kDLPackMajor) {
    throw py::type_error(absl::StrCat("DLPack version ", managed.version.major, ".", managed.version.minor));
  }
  return {managed.tensor, (managed.flags & kDLPackReadOnly) != 0};
}

void CheckExchanged(const DLTensor& view) {
  if (!IsHostMemory(view.device.type)) {
    throw py::type_error(absl::StrCat("it is on DLPack device type ", view.device.type, ", not in host memory"));
  }
  if (view.ndim < 0 || (view.ndim > 0 && view.shape == nullptr)) {
    throw py::type_error(absl::StrCat("its DLPack capsule has ", view.ndim, " dimensions and no shape"));
  }
  if (!IsRowMajor(view)) throw py::type_error("not row-major without gaps");
}

// (dtype, shape, address, read-only) of a capsule, which the caller must keep alive. TypeError if it cannot be read.
py::tuple ReadDLPack(const py::capsule& capsule) {
  const auto& [view, is_read_only] = OpenCapsule(capsule);
  CheckExchanged(view);
  const std::optional<DType> dtype = FromDLPack(view.dtype);
  if (!dtype.has_value()) {
    throw py::type_error(absl::StrCat("DLPack element type code ", view.dtype.code, ", ", view.dtype.bits, " bits, ",
                                      view.dtype.lanes, " lanes"));
  }
  const std::vector<int64_t> shape(view.shape, view.shape + view.ndim);
  const auto data = reinterpret_cast<uintptr_t>(view.data);
  return py::make_tuple(std::string(Name(*dtype)), shape, data == 0 ? 0 : data + view.byte_offset, is_read_only);
}

py::buffer_info BufferOf(Tensor& tensor) {
  return {tensor.bytes.data(), 1, "B", 1, {static_cast<py::ssize_t>(tensor.bytes.size())}, {1}};
}

// (address, bytes, read-only) of an object whose memory is contiguous.
py::tuple ReadBuffer(const py::buffer& object) {
  Py_buffer view;
  if (PyObject_GetBuffer(object.ptr(), &view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT) != 0) throw py::error_already_set();
  const py::tuple result =
      py::make_tuple(reinterpret_cast<uintptr_t>(view.buf), static_cast<uint64_t>(view.len), view.readonly != 0);
  PyBuffer_Release(&view);
  return result;
}

// INVALID_ARGUMENT if address and size cannot be valid memory.
std::unique_ptr<Lent> MakeLent(uintptr_t address, uint64_t size, py::object owner) {
  if (address == 0 && size != 0) {
    throw StatusError(absl::InvalidArgumentError(absl::StrCat("its address is null, but it has ", size, " bytes")));
  }
  return std::make_unique<Lent>(Lent{address, size, std::move(owner)});
}

void CheckLent(const Lent& lent, bool writable) {
  absl::Status status;
  {
    const WithoutGil no_gil;
    MemoryProbe probe;
    status = writable ? probe.CheckWritable(lent.bytes()) : probe.CheckReadable(lent.bytes());
  }
  Check(status);
}

// A copy of the bytes.
std::unique_ptr<Lent> CopyLent(const Lent& lent) {
  CheckLent(lent, false);
  Tensor copy;
  {
    const WithoutGil no_gil;
    absl::StatusOr<std::shared_ptr<Buffer>> buffer = Buffer::Allocate(lent.size);
    if (buffer.ok() && lent.size != 0) std::memcpy((*buffer)->data(), lent.bytes().data(), lent.size);
    if (buffer.ok()) copy = {{}, (*buffer)->span(), *buffer};
  }
  if (copy.owner == nullptr) {
    throw StatusError(
        absl::ResourceExhaustedError(absl::StrCat("there is no memory for a copy of ", lent.size, " bytes")));
  }
  const auto address = reinterpret_cast<uintptr_t>(copy.bytes.data());
  return MakeLent(address, lent.size, py::cast(std::move(copy)));
}

Box MakeBox(const std::vector<int64_t>& offsets, const std::vector<int64_t>& sizes) {
  return {Shape(offsets.begin(), offsets.end()), Shape(sizes.begin(), sizes.end())};
}

uint64_t DigestLent(const Lent& lent) {
  CheckLent(lent, false);
  const WithoutGil no_gil;
  return DigestBytes(lent.bytes());
}

}  // namespace

std::vector<int64_t> ToVector(absl::Span<const int64_t> shape) { return {shape.begin(), shape.end()}; }

void BindTensor(py::module_& module) {
  py::class_<Box>(module, "Box")
      .def(py::init(&MakeBox), py::arg("offsets"), py::arg("sizes"))
      .def_property_readonly("offsets", [](const Box& box) { return py::tuple(py::cast(ToVector(box.offsets))); })
      .def_property_readonly("sizes", [](const Box& box) { return py::tuple(py::cast(ToVector(box.sizes))); })
      .def("__repr__", [](const Box& box) { return absl::StrCat("Box(", ToString(box), ")"); })
      .def("__eq__", [](const Box& a, const Box& b) { return a == b; })
      .def(py::pickle([](const Box& box) { return py::make_tuple(ToVector(box.offsets), ToVector(box.sizes)); },
                      [](const py::tuple& state) {
                        return MakeBox(state[0].cast<std::vector<int64_t>>(), state[1].cast<std::vector<int64_t>>());
                      }));

  py::class_<TensorPart>(module, "Part")
      .def(py::init([](std::string name, const std::string& dtype, const std::vector<int64_t>& shape,
                       const std::optional<Box>& box) {
             TensorSpec spec{std::move(name), Value(ParseDType(dtype)), Shape(shape.begin(), shape.end())};
             if (!box.has_value()) Check(Validate(spec));
             return box.has_value() ? TensorPart{std::move(spec), *box} : TensorPart::Whole(std::move(spec));
           }),
           py::arg("name"), py::arg("dtype"), py::arg("shape"), py::arg("box") = py::none())
      .def_property_readonly("name", [](const TensorPart& part) { return part.tensor.name; })
      .def_property_readonly("dtype", [](const TensorPart& part) { return std::string(Name(part.tensor.dtype)); })
      .def_property_readonly("shape",
                             [](const TensorPart& part) { return py::tuple(py::cast(ToVector(part.tensor.shape))); })
      .def_readonly("box", &TensorPart::box)
      .def_property_readonly("is_whole", &TensorPart::is_whole)
      .def_property_readonly("nbytes", &TensorPart::ByteSize)
      .def("__repr__", [](const TensorPart& part) { return part.ToString(); });

  py::class_<Lent>(module, "Lent")
      .def(py::init(&MakeLent), py::arg("address"), py::arg("size"), py::arg("owner"))
      .def_readonly("address", &Lent::address)
      .def_readonly("size", &Lent::size)
      .def("check", &CheckLent, py::arg("writable") = false)
      .def("copy", &CopyLent)
      .def("digest", &DigestLent);

  py::class_<Tensor>(module, "TensorMemory", py::buffer_protocol())
      .def_buffer(&BufferOf)
      .def_property_readonly("part", [](const Tensor& tensor) { return tensor.part; })
      .def_property_readonly("address",
                             [](const Tensor& tensor) { return reinterpret_cast<uintptr_t>(tensor.bytes.data()); })
      .def_property_readonly("nbytes", [](const Tensor& tensor) { return tensor.bytes.size(); })
      .def("dlpack", &DLPackOf)
      .def("dlpack_of_bytes", &DLPackOfBytes);

  module.def("read_dlpack", &ReadDLPack, py::arg("capsule"));
  module.def("is_dlpack_host_memory", &IsHostMemory, py::arg("device_type"));
  module.def("read_buffer", &ReadBuffer, py::arg("object"));
  module.def("parse_dtype", [](const std::string& name) { return std::string(Name(Value(ParseDType(name)))); });
}

}  // namespace refit::python
