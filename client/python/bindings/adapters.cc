#include "client/python/bindings/adapters.h"

#include <pybind11/stl.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/python/bindings/convert.h"
#include "client/python/bindings/gil.h"
#include "client/python/bindings/status_error.h"
#include "client/python/bindings/tensor.h"
#include "common/adapters/adapter_registry.h"
#include "common/adapters/native_range_writer.h"
#include "common/adapters/recognise_family.h"
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
                       const std::string& exclude_key_regex, const std::optional<std::string>& dtype,
                       const AdapterOptions& adapter_options) {
  const std::shared_ptr<const Adapter> adapter = Value(FindAdapter(adapter_name, adapter_options));
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
    if (output.transform == Transform::kPass && !output.box.has_value() && output.hf.dtype == native.tensor.dtype &&
        output.hf.shape == native.tensor.shape) {
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

py::list Adapters() {
  py::list adapters;
  for (const std::shared_ptr<const Family>& family : KnownFamilies()) {
    py::dict options;
    for (const FamilyOption& option : family->options) {
      py::list values;
      for (const FamilyOption::Value& value : option.values) values.append(value.name);
      options[py::str(option.name)] = values;
    }
    py::dict adapter;
    adapter["name"] = family->name;
    adapter["title"] = family->title;
    adapter["models"] = family->models;
    adapter["engines"] = family->engines;
    adapter["not_covered"] = family->not_covered;
    adapter["options"] = options;
    adapter["exclude"] = std::string(ExcludeStageName(family->exclude));
    adapter["keep_dtype"] = family->keep_dtype;
    adapter["f32"] = family->f32;
    adapters.append(adapter);
  }
  return adapters;
}

// (name, why).
std::pair<std::string, std::string> Recognise(const std::vector<TensorPart>& parts) {
  std::vector<TensorSpec> native;
  native.reserve(parts.size());
  for (const TensorPart& part : parts) native.push_back(part.tensor);
  const RecognisedFamily recognised = Value(RecogniseFamily(native));
  return {recognised.name, recognised.why};
}

}  // namespace

void BindAdapters(py::module_& module) {
  module.def("convert_single", &ConvertSingle, py::kw_only(), py::arg("adapter"), py::arg("native"), py::arg("memory"),
             py::arg("exclude_key_regex"), py::arg("dtype"), py::arg("adapter_options"));
  module.def("adapter_names", &AdapterNames);
  module.def("adapters", &Adapters);
  module.def("recognise", &Recognise, py::arg("parts"));
  module.def(
      "add_adapter_file", [](const std::string& path) { Check(AddAdapterFile(path)); }, py::arg("path"));
}

}  // namespace refit::python
