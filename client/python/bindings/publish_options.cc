#include "client/python/bindings/publish_options.h"

#include <pybind11/stl.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "client/python/bindings/convert.h"
#include "refit/publish_options.h"

namespace refit::python {
namespace {

namespace py = pybind11;

PublishOptions MakeOptions(const std::string& model, uint64_t version, const std::string& adapter,
                           const std::optional<std::string>& dtype, const std::string& exclude_key_regex,
                           const std::string& keep_dtype_regex, const std::string& publisher, uint32_t rank,
                           uint32_t world, bool hold_installs, uint64_t trainer_epoch, bool allow_empty, double timeout,
                           const std::map<std::string, std::string>& adapter_options, bool keep_family_dtypes) {
  PublishOptions options;
  options.model = model;
  options.version = version;
  options.adapter = adapter;
  options.dtype = OptionalDType(dtype);
  options.exclude_key_regex = exclude_key_regex;
  options.keep_dtype_regex = keep_dtype_regex;
  options.publisher = publisher;
  options.rank = rank;
  options.world = world;
  options.hold_installs = hold_installs;
  options.trainer_epoch = trainer_epoch;
  options.allow_empty = allow_empty;
  options.timeout = Milliseconds(timeout);
  options.adapter_options = adapter_options;
  options.keep_family_dtypes = keep_family_dtypes;
  return options;
}

}  // namespace

void BindPublishOptions(py::module_& module) {
  py::class_<PublishOptions>(module, "PublishOptions")
      .def(py::init(&MakeOptions), py::kw_only(), py::arg("model"), py::arg("version"), py::arg("adapter"),
           py::arg("dtype"), py::arg("exclude_key_regex"), py::arg("keep_dtype_regex") = "", py::arg("publisher"),
           py::arg("rank") = 0, py::arg("world") = 1, py::arg("hold_installs"), py::arg("trainer_epoch"),
           py::arg("allow_empty"), py::arg("timeout") = 60.0,
           py::arg("adapter_options") = std::map<std::string, std::string>(), py::arg("keep_family_dtypes") = true);
}

}  // namespace refit::python
