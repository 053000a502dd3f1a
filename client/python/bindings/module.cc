// The native module of the package. Only the package's Python modules use it.
#include <pybind11/pybind11.h>

#include "client/python/bindings/adapters.h"
#include "client/python/bindings/cancel_flag.h"
#include "client/python/bindings/convert.h"
#include "client/python/bindings/ending.h"
#include "client/python/bindings/layout_rule.h"
#include "client/python/bindings/publish_options.h"
#include "client/python/bindings/pull_base.h"
#include "client/python/bindings/service.h"
#include "client/python/bindings/status_error.h"
#include "client/python/bindings/subscriber.h"
#include "client/python/bindings/targets.h"
#include "client/python/bindings/tensor.h"
#include "client/python/bindings/trainer.h"
#include "client/python/bindings/worker.h"
#include "common/net/channel.h"
#include "common/net/grpc_log.h"
#include "refit/tuning.h"

namespace py = pybind11;

PYBIND11_MODULE(_refit, module) {
  refit::IgnoreLockCycles();
  refit::KeepGrpcLogFromBlocking();
  refit::python::RegisterStatusError();
  refit::python::EndWithInterpreter();
  module.def("tune_allocator", &refit::TuneForBulkData);
  py::class_<refit::ChannelOptions>(module, "Channel")
      .def(py::init(&refit::python::MakeChannelOptions), py::kw_only(), py::arg("address"), py::arg("zone"),
           py::arg("transport"), py::arg("connect_timeout"), py::arg("security"));
  py::class_<refit::python::CancelFlag>(module, "CancelFlag")
      .def(py::init<>())
      .def("cancel", &refit::python::CancelFlag::Cancel);
  refit::python::BindTensor(module);
  refit::python::BindPublishOptions(module);
  refit::python::BindTrainer(module);
  refit::python::BindLayoutRule(module);
  refit::python::BindTargets(module);
  refit::python::BindPullBase(module);
  refit::python::BindSubscriber(module);
  refit::python::BindWorker(module);
  refit::python::BindService(module);
  refit::python::BindAdapters(module);
}
