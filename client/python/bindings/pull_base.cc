#include "client/python/bindings/pull_base.h"

#include <cstdint>
#include <memory>

#include "client/python/bindings/python_owner.h"
#include "client/python/bindings/tensor.h"
#include "refit/pull.h"

namespace refit::python {
namespace {

namespace py = pybind11;

std::shared_ptr<PullBase> MakeBase(uint64_t version, uint64_t trainer_epoch, uint64_t digest) {
  auto base = std::make_shared<PullBase>();
  base->version = version;
  base->trainer_epoch = trainer_epoch;
  base->digest = digest;
  return base;
}

}  // namespace

void BindPullBase(py::module_& module) {
  py::class_<PullBase, std::shared_ptr<PullBase>>(module, "Base")
      .def(py::init(&MakeBase), py::kw_only(), py::arg("version"), py::arg("trainer_epoch"), py::arg("digest"))
      .def(
          "add",
          [](PullBase& base, const Tensor& tensor) {
            base.tensors.push_back({tensor.part, tensor.bytes, tensor.owner});
          },
          py::arg("tensor"))
      .def(
          "add_lent",
          [](PullBase& base, const TensorPart& part, const Lent& lent) {
            base.tensors.push_back({part, lent.bytes(), OwnedBy(lent.owner)});
          },
          py::arg("part"), py::arg("memory"));
}

}  // namespace refit::python
