#include "client/python/bindings/adapters.h"

#include <pybind11/stl.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/python/bindings/convert.h"
#include "client/python/bindings/gil.h"
#include "client/python/bindings/status_error.h"
#include "client/python/bindings/tensor.h"
#include "common/adapters/native_range_writer.h"
#include "common/adapters/plan.h"
#include "common/net/status.h"
#include "common/tensor/kernels.h"
#include "refit/memory_probe.h"

namespace refit::python {
namespace {

namespace py = pybind11;

absl::StatusOr<Tensor> Convert(const TensorSpec& native, const PlannedOutput& output,
                               absl::Span<const std::byte> bytes) {
  absl::StatusOr<std::shared_ptr<Buffer>> buffer = Buffer::Allocate(output.hf.ByteSize());
  if (!buffer.ok()) return buffer.status();
  if (output.transform == Transform::kOnes) {
    FillOnes(output.hf.dtype, (*buffer)->data(), *ElementCount(output.hf.shape));
  } else {
    WriteNativeRange(TensorPart::Whole(native), output, 0, bytes, (*buffer)->data());
  }
  return Tensor{TensorPart::Whole(output.hf), (*buffer)->span(), *buffer};
}

void CheckReadable(const TensorPart& native, const Lent& memory) {
  const WithoutGil no_gil;
  Check(Annotate(MemoryProbe().CheckReadable(memory.bytes()), absl::StrCat("tensor ", native.ToString())));
}

// A list of (part, tensor). The tensor is None where the output is the native tensor under a new name.
py::list ConvertSingle(const std::string& adapter_name, const TensorPart& native, const Lent& memory,
                       const std::string& exclude_key_regex, const std::optional<std::string>& dtype) {
  const std::shared_ptr<const Adapter> adapter = Value(FindAdapter(adapter_name));
  ConvertOptions options;
  options.dtype = OptionalDType(dtype);
  options.exclude = Value(PythonRegex::Compile(exclude_key_regex));
  Check(Validate(options));
  Check(Validate(native.tensor));
  if (memory.size != native.tensor.ByteSize()) {
    throw StatusError(absl::InvalidArgumentError("the memory is not the tensor's size"));
  }
  CheckReadable(native, memory);
  py::list result;
  for (const PlannedOutput& output : Value(adapter->PlanTensor(native.tensor, options))) {
    const TensorPart part = TensorPart::Whole(output.hf);
    if (output.transform == Transform::kPass && output.hf.dtype == native.tensor.dtype) {
      result.append(py::make_tuple(part, py::none()));
      continue;
    }
    absl::StatusOr<Tensor> converted;
    {
      const WithoutGil no_gil;
      converted = Convert(native.tensor, output, memory.bytes());
    }
    result.append(py::make_tuple(part, Value(std::move(converted))));
  }
  return result;
}

}  // namespace

void BindAdapters(py::module_& module) {
  module.def("convert_single", &ConvertSingle, py::kw_only(), py::arg("adapter"), py::arg("native"), py::arg("memory"),
             py::arg("exclude_key_regex"), py::arg("dtype"));
  module.def("adapter_names", &AdapterNames);
}

}  // namespace refit::python
