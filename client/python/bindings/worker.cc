#include "client/python/bindings/worker.h"

#include <pybind11/stl.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "client/python/bindings/cancel_flag.h"
#include "client/python/bindings/convert.h"
#include "client/python/bindings/gil.h"
#include "client/python/bindings/interruptible.h"
#include "client/python/bindings/status_error.h"
#include "client/python/bindings/targets.h"
#include "client/python/bindings/tensor.h"
#include "refit/worker.h"

namespace refit::python {
namespace {

namespace py = pybind11;

// Calls the engine's Python functions for a worker.
class PythonWorker {
 public:
  // `install(dict, tensors)`; `on_error(exception)` or None. `targets`: memory in use, which is overwritten in place.
  PythonWorker(const ChannelOptions& channel, CancelFlag& flag, const PullOptions& pull, Targets targets, bool in_place,
               bool deltas, bool keep_base, uint64_t max_version_step, bool accept_new_run, py::object install,
               py::object on_error)
      : targets_(std::move(targets)), install_(std::move(install)), on_error_(std::move(on_error)) {
    WorkerOptions options;
    options.pull = pull;
    options.in_place = in_place;
    options.deltas = deltas;
    options.keep_base = keep_base;
    options.max_version_step = max_version_step;
    options.accept_new_run = accept_new_run;
    options.install = [this](StagedVersion& staged) { return Install(staged); };
    options.on_error = [this](const absl::Status& status) { Tell(status); };
    if (!targets_.empty()) options.place = [this](const TensorPart& part) { return Place(part); };
    worker_ =
        Connected(channel, flag, [&](const ChannelOptions& to) { return Worker::Create(to, std::move(options)); });
  }
  ~PythonWorker() {
    const WithoutGil no_gil;
    worker_.reset();
  }
  PythonWorker(const PythonWorker&) = delete;
  PythonWorker& operator=(const PythonWorker&) = delete;

  // Runs until Stop, or until `done()` returns true.
  void Follow(const py::object& done) {
    std::function<bool()> is_done;
    if (!done.is_none()) {
      is_done = [&done] {
        bool answer = false;
        return !CallPython([&] { answer = done().cast<bool>(); }) || answer;
      };
    }
    absl::Status status;
    Run([&] { status = worker_->Follow(is_done); });
    Check(status);
  }

  py::dict Refit(std::optional<uint64_t> version, std::optional<uint64_t> trainer_epoch) {
    return Installed([&] { return worker_->Refit(version, trainer_epoch); });
  }
  py::dict RollBack() {
    return Installed([&] { return worker_->RollBack(); });
  }
  void WaitForVersion(uint64_t version, double timeout, std::optional<uint64_t> trainer_epoch) {
    absl::Status status;
    Run([&] { status = worker_->WaitForVersion(version, Milliseconds(timeout), trainer_epoch); });
    Check(status);
  }

  Worker& worker() { return *worker_; }

 private:
  void Run(absl::FunctionRef<void()> work) {
    RunInterruptible(work, [this] { worker_->Stop(); });
  }

  // If `install` raised, that exception is raised again, rather than the status that was made from it.
  py::dict Installed(absl::FunctionRef<absl::StatusOr<VersionSummary>()> refit) {
    absl::StatusOr<VersionSummary> version;
    raised_ = py::none();
    Run([&] { version = refit(); });
    if (!version.ok() && !raised_.is_none()) {
      Raise(std::exchange(raised_, py::none()));
    }
    return ToDict(Value(std::move(version)));
  }

  absl::StatusOr<absl::Span<std::byte>> Place(const TensorPart& part) const {
    if (absl::Status status = targets_.Check({part}); !status.ok()) return status;
    return targets_.At(part).bytes;
  }

  absl::Status Install(StagedVersion& staged) {
    absl::Status status;
    const bool called = CallPython([&] { status = CallInstall(staged); });
    return called ? status : absl::CancelledError("interrupted");
  }

  // Call it with the GIL held. If the engine fails, the old version stays in use. An exception that ends the program is
  // passed on.
  absl::Status CallInstall(StagedVersion& staged) {
    try {
      install_(VersionOf(staged), TensorsOf(staged));
      return absl::OkStatus();
    } catch (py::error_already_set& error) {
      if (!error.matches(PyExc_Exception)) throw;
      raised_ = error.value();
      return absl::InternalError(absl::StrCat("install raised ", error.what()));
    }
  }

  static py::dict VersionOf(const StagedVersion& staged) {
    py::dict version = ToDict(staged.version);
    version["skipped"] = staged.skipped;
    version["seconds"] = Seconds(staged.stage_time);
    version["address"] = staged.address;
    version["moved"] = staged.moved;
    version["not_mapped"] = staged.not_mapped;
    version["traffic"] = ToDict(staged.traffic);
    version["selection_digest"] = staged.selection_digest;
    return version;
  }

  py::list TensorsOf(StagedVersion& staged) const {
    py::list tensors;
    for (StagedVersion::Tensor& tensor : staged.tensors) {
      tensors.append(tensor.owner == nullptr ? targets_.At(tensor.part)
                                             : Tensor{tensor.part, tensor.bytes, std::move(tensor.owner)});
    }
    return tensors;
  }

  void Tell(const absl::Status& status) {
    CallPython([&] {
      if (!on_error_.is_none()) on_error_(raised_.is_none() ? ToException(status) : raised_);
      raised_ = py::none();
    });
  }

  const Targets targets_;
  const py::object install_;
  const py::object on_error_;
  py::object raised_ = py::none();  // by `install`, since it was last reported
  std::unique_ptr<Worker> worker_;
};

}  // namespace

void BindWorker(py::module_& module) {
  py::class_<PythonWorker>(module, "Worker")
      .def(py::init<const ChannelOptions&, CancelFlag&, const PullOptions&, Targets, bool, bool, bool, uint64_t, bool,
                    py::object, py::object>(),
           py::kw_only(), py::arg("channel"), py::arg("cancel"), py::arg("pull"), py::arg("targets"),
           py::arg("in_place"), py::arg("deltas"), py::arg("keep_base"), py::arg("max_version_step"),
           py::arg("accept_new_run"), py::arg("install"), py::arg("on_error"))
      .def("follow", &PythonWorker::Follow, py::arg("done"))
      .def("refit", &PythonWorker::Refit, py::arg("version"), py::arg("trainer_epoch"))
      .def("roll_back", &PythonWorker::RollBack)
      .def("wait_for", &PythonWorker::WaitForVersion, py::arg("version"), py::arg("timeout"), py::arg("trainer_epoch"))
      .def("installed", [](PythonWorker& worker) { return worker.worker().installed(); })
      .def("torn", [](PythonWorker& worker) { return worker.worker().torn(); })
      .def("of_other_run", [](PythonWorker& worker) { return worker.worker().of_other_run(); })
      .def("name", [](PythonWorker& worker) { return worker.worker().name(); })
      .def("stop", [](PythonWorker& worker) {
        const WithoutGil no_gil;
        worker.worker().Stop();
      });
}

}  // namespace refit::python
