#include "client/python/bindings/subscriber.h"

#include <pybind11/stl.h>

#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "client/python/bindings/cancel_flag.h"
#include "client/python/bindings/convert.h"
#include "client/python/bindings/interruptible.h"
#include "client/python/bindings/pull_sink.h"
#include "client/python/bindings/status_error.h"
#include "client/python/bindings/targets.h"
#include "common/tensor/buffer_pool.h"
#include "refit/subscriber.h"

namespace refit::python {
namespace {

namespace py = pybind11;

py::dict ResultOf(const PullResult& result) {
  py::dict dict = ToDict(result.version);
  dict["seconds"] = Seconds(result.elapsed);
  dict["waited_seconds"] = Seconds(result.waited);
  dict["resumed"] = result.resumed;
  dict["streams"] = result.streams;
  dict["address"] = result.address;
  dict["moved"] = result.moved;
  dict["not_mapped"] = result.not_mapped;
  dict["skipped"] = result.skipped;
  dict["traffic"] = ToDict(result.traffic);
  dict["selection_digest"] = result.selection_digest;
  return dict;
}

// A connection, and the memory that its pulls reuse.
class PythonSubscriber {
 public:
  PythonSubscriber(const ChannelOptions& channel, CancelFlag& flag)
      : subscriber_(
            Connected(channel, flag, [](const ChannelOptions& options) { return Subscriber::Connect(options); })) {}

  // Returns (the version's summary, its tensors). `base` may be null. If a pull fails after some of `targets` were
  // written, its exception has `torn` set.
  py::tuple Pull(PullOptions options, const std::shared_ptr<PullBase>& base, const Targets& targets, bool may_map,
                 const py::object& on_progress) {
    options.base = base;
    ProgressReport progress(on_progress);
    PullSink sink(pool_, targets, may_map, progress);
    absl::StatusOr<PullResult> result;
    RunInterruptible([&] { result = subscriber_->Pull(options, sink); }, [&] { subscriber_->Cancel(); });
    if (!result.ok()) Fail(result.status(), sink.wrote_targets());
    return py::make_tuple(ResultOf(*result), std::move(sink.tensors()));
  }

  // Calls `on_event` with each state until it returns False.
  void Watch(const WatchOptions& options, const py::object& on_event) {
    absl::Status status;
    const auto tell = [&](const VersionSummary& version) {
      bool goes_on = false;
      return CallPython([&] { goes_on = on_event(ToDict(version)).cast<bool>(); }) && goes_on;
    };
    RunInterruptible([&] { status = subscriber_->Watch(options, tell); }, [&] { subscriber_->Cancel(); });
    Check(status);
  }

  void Cancel() { subscriber_->Cancel(); }

 private:
  [[noreturn]] static void Fail(const absl::Status& status, bool torn) {
    const py::object exception = ToException(status);
    exception.attr("torn") = torn;
    Raise(exception);
  }

  const std::unique_ptr<Subscriber> subscriber_;
  BufferPool pool_{std::numeric_limits<int64_t>::max()};
};

PullOptions MakePullOptions(const std::string& model, std::optional<uint64_t> version, const std::string& filter,
                            const std::vector<std::string>& names, const std::vector<LayoutRule>& rules,
                            const std::vector<std::pair<std::string, Box>>& boxes, const std::string& worker,
                            std::optional<uint64_t> installed, double idle_timeout, double resume_within,
                            std::optional<uint64_t> trainer_epoch, uint64_t life, uint32_t streams) {
  PullOptions options;
  options.model = model;
  options.version = version;
  options.trainer_epoch = trainer_epoch;
  options.life = life;
  options.streams = streams;
  options.filter = filter;
  options.names = names;
  options.rules = rules;
  options.boxes = boxes;
  options.worker = worker;
  options.installed = installed;
  options.idle_timeout = Milliseconds(idle_timeout);
  options.resume_within = Milliseconds(resume_within);
  return options;
}

}  // namespace

void BindSubscriber(py::module_& module) {
  py::class_<PullOptions>(module, "PullOptions")
      .def(py::init(&MakePullOptions), py::kw_only(), py::arg("model"), py::arg("version"), py::arg("filter"),
           py::arg("names"), py::arg("rules"), py::arg("boxes"), py::arg("worker"), py::arg("installed"),
           py::arg("idle_timeout"), py::arg("resume_within"), py::arg("trainer_epoch"), py::arg("life"),
           py::arg("streams") = 1);

  py::class_<PythonSubscriber>(module, "Subscriber")
      .def(py::init<const ChannelOptions&, CancelFlag&>(), py::arg("channel"), py::arg("cancel"))
      .def("pull", &PythonSubscriber::Pull, py::arg("options"), py::arg("base"), py::arg("targets"), py::arg("may_map"),
           py::arg("on_progress"))
      .def(
          "watch",
          [](PythonSubscriber& subscriber, const std::string& model, std::optional<uint64_t> after,
             std::optional<uint64_t> trainer_epoch, const py::object& on_event, const std::string& worker,
             uint64_t life) {
            subscriber.Watch({model, after, trainer_epoch, worker, life}, on_event);
          },
          py::kw_only(), py::arg("model"), py::arg("after"), py::arg("trainer_epoch"), py::arg("on_event"),
          py::arg("worker"), py::arg("life"))
      .def("cancel", &PythonSubscriber::Cancel);
}

}  // namespace refit::python
