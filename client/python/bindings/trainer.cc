#include "client/python/bindings/trainer.h"

#include <pybind11/stl.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "client/python/bindings/cancel_flag.h"
#include "client/python/bindings/convert.h"
#include "client/python/bindings/interruptible.h"
#include "client/python/bindings/publisher_run.h"
#include "client/python/bindings/python_owner.h"
#include "client/python/bindings/wire_push.h"
#include "refit/publisher.h"

namespace refit::python {
namespace {

namespace py = pybind11;

using Shards = std::vector<TensorPart>;

std::shared_ptr<Publisher> Connect(const ChannelOptions& channel, CancelFlag& flag, uint32_t streams) {
  return Connected(channel, flag,
                   [streams](const ChannelOptions& options) { return Publisher::Connect(options, streams); });
}

// Tells Python which ranks are missing.
std::function<void(absl::Span<const uint32_t>)> Waiting(const py::object& on_waiting) {
  if (on_waiting.is_none()) return nullptr;
  return [callback = py::handle(on_waiting), owner = OwnedBy(on_waiting)](absl::Span<const uint32_t> missing) {
    CallPython([&] { callback(std::vector<uint32_t>(missing.begin(), missing.end())); });
  };
}

std::unique_ptr<WirePush> Open(const std::shared_ptr<Publisher>& publisher, const PublishOptions& options,
                               const Shards& shards) {
  auto push = Run<std::unique_ptr<VersionPush>>(*publisher, [&] { return publisher->OpenShards(options, shards); });
  return std::make_unique<WirePush>(publisher, std::move(push), options.timeout);
}

uint32_t AwaitWorkers(Publisher& publisher, const std::string& model, uint64_t version,
                      std::optional<uint64_t> trainer_epoch, bool installed, uint32_t workers, bool all,
                      double timeout) {
  Publisher::Await await;
  await.model = model;
  await.version = version;
  await.trainer_epoch = trainer_epoch;
  await.phase = installed ? Publisher::Await::Phase::kInstalled : Publisher::Await::Phase::kStaged;
  await.workers = workers;
  await.all = all;
  await.timeout = Milliseconds(timeout);
  return Run<uint32_t>(publisher, [&] { return publisher.AwaitWorkers(await); });
}

}  // namespace

void BindTrainer(py::module_& module) {
  py::class_<WirePush>(module, "Push")
      .def("summary", &WirePush::Summary)
      .def("unneeded", &WirePush::Unneeded, py::arg("index"))
      .def("append", &WirePush::Append, py::arg("items"), py::arg("until_read"))
      .def("commit", &WirePush::Commit)
      .def("abort", &WirePush::Abort, py::arg("reason"));

  py::class_<Publisher, std::shared_ptr<Publisher>>(module, "Publisher")
      .def(py::init(&Connect), py::arg("channel"), py::arg("cancel"), py::arg("streams") = 1)
      .def(
          "open",
          [](const std::shared_ptr<Publisher>& publisher, PublishOptions options, const Shards& shards,
             const py::object& on_waiting) {
            options.on_waiting = Waiting(on_waiting);
            return Open(publisher, options, shards);
          },
          py::arg("options"), py::arg("shards"), py::arg("on_waiting"))
      .def(
          "abort",
          [](Publisher& publisher, const std::string& model, uint64_t version, const std::string& reason) {
            return ToDict(Run<VersionSummary>(publisher, [&] { return publisher.Abort(model, version, reason); }));
          },
          py::arg("model"), py::arg("version"), py::arg("reason"))
      .def(
          "release_installs",
          [](Publisher& publisher, const std::string& model, uint64_t version) {
            return ToDict(Run<VersionSummary>(publisher, [&] { return publisher.ReleaseInstalls(model, version); }));
          },
          py::arg("model"), py::arg("version"))
      .def("await_workers", &AwaitWorkers, py::kw_only(), py::arg("model"), py::arg("version"),
           py::arg("trainer_epoch"), py::arg("installed"), py::arg("workers"), py::arg("all"), py::arg("timeout"))
      .def(
          "last_run",  // (trainer_epoch, version)
          [](Publisher& publisher, const std::string& model) {
            const auto last = Run<Publisher::LastRun>(publisher, [&] { return publisher.AskLastRun(model); });
            return std::make_pair(last.trainer_epoch, last.version);
          },
          py::arg("model"))
      .def(
          "connected_workers",
          [](Publisher& publisher, const std::string& model) {
            return Run<int>(publisher, [&] { return publisher.AskConnectedWorkers(model); });
          },
          py::arg("model"))
      .def("cancel", &Publisher::Cancel);
}

}  // namespace refit::python
