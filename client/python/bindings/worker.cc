#include "client/python/bindings/worker.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <chrono>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/python/bindings/cancel_flag.h"
#include "client/python/bindings/convert.h"
#include "client/python/bindings/gil.h"
#include "client/python/bindings/interruptible.h"
#include "client/python/bindings/python_owner.h"
#include "client/python/bindings/status_error.h"
#include "client/python/bindings/tensor.h"
#include "common/tensor/slab.h"
#include "refit/subscriber.h"
#include "refit/worker.h"

namespace refit::python {
namespace {

namespace py = pybind11;

using Clock = std::chrono::steady_clock;

// How often progress is told.
constexpr std::chrono::milliseconds kProgressInterval{100};

// Memory of the caller's, for tensors by name.
class Targets {
 public:
  void Add(const TensorPart& expected, const Lent& lent) {
    const auto address = reinterpret_cast<std::byte*>(lent.address);
    targets_[expected.tensor.name] = {expected.spec(), {address, lent.size}, OwnedBy(lent.owner)};
  }
  bool empty() const { return targets_.empty(); }

  // INVALID_ARGUMENT, naming the first tensor of the version that has no place of its dtype and shape.
  absl::Status Check(const std::vector<TensorPart>& tensors) const {
    for (const TensorPart& part : tensors) {
      const auto found = targets_.find(part.tensor.name);
      if (found == targets_.end()) {
        return absl::InvalidArgumentError(absl::StrCat("tensor ", part.ToString(), ": `out` has none of this name"));
      }
      const TensorSpec& spec = found->second.spec;
      if (spec == part.spec()) continue;
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", part.spec().ToString(), ": `out` has ", Name(spec.dtype), " ", ToString(spec.shape)));
    }
    return absl::OkStatus();
  }

  Tensor At(const TensorPart& part) const {
    const Target& target = targets_.at(part.tensor.name);
    return {part, target.bytes, target.owner};
  }

 private:
  struct Target {
    TensorSpec spec;
    absl::Span<std::byte> bytes;
    std::shared_ptr<const void> owner;
  };
  std::map<std::string, Target> targets_;
};

// Tells Python how far a pull is, now and then.
class ProgressReport {
 public:
  // `callback`, which may be None, must live longer.
  explicit ProgressReport(py::handle callback) : callback_(callback) {}

  absl::Status Tell(uint64_t bytes, uint64_t total, bool last = false) {
    if (callback_.is_none() || (!last && Clock::now() - told_ < kProgressInterval)) return absl::OkStatus();
    told_ = Clock::now();
    const bool goes_on = CallPython([&] { callback_(bytes, total); });
    return goes_on ? absl::OkStatus() : absl::CancelledError("its progress callback raised");
  }

 private:
  const py::handle callback_;
  Clock::time_point told_;
};

// Into the caller's memory where there is some, else into the pool's, or the service's.
class Sink final : public TensorSink {
 public:
  Sink(BufferPool& pool, const Targets& targets, bool may_map, ProgressReport& progress)
      : pool_(pool), targets_(targets), may_map_(may_map && targets.empty()), progress_(progress) {}

  absl::Status Begin(const v1::VersionSummary&, const std::vector<TensorPart>& tensors) override {
    if (!targets_.empty()) {
      if (absl::Status status = targets_.Check(tensors); !status.ok()) return status;
    }
    if (targets_.empty()) slabs_ = Slabs(SlabPlan::Of(tensors));
    pool_.TrimTo(slabs_.plan().capacity());
    tensors_.reserve(tensors.size());
    for (const TensorPart& part : tensors) {
      tensors_.push_back(targets_.empty() ? Tensor{part, {}, nullptr} : targets_.At(part));
      total_ += part.ByteSize();
    }
    return progress_.Tell(0, total_);
  }

  absl::StatusOr<absl::Span<std::byte>> Place(size_t index) override {
    Tensor& tensor = tensors_[index];
    if (!targets_.empty()) {
      wrote_targets_ = true;
      return tensor.bytes;
    }
    auto buffer = slabs_.Get(index, [this](size_t size) { return pool_.Get(size); });
    if (!buffer.ok()) return buffer.status();
    tensor.bytes = (*buffer)->span();
    tensor.owner = *std::move(buffer);
    return tensor.bytes;
  }

  bool Adopt(size_t index, std::shared_ptr<Buffer> mapped) override {
    if (!may_map_) return false;
    tensors_[index].bytes = mapped->span();
    tensors_[index].owner = std::move(mapped);
    return true;
  }

  absl::Status Done(size_t index) override {
    done_ += tensors_[index].part.ByteSize();
    return progress_.Tell(done_, total_, index + 1 == tensors_.size());
  }

  std::vector<Tensor>& tensors() { return tensors_; }
  bool wrote_targets() const { return wrote_targets_; }

 private:
  BufferPool& pool_;
  Slabs slabs_;
  const Targets& targets_;
  const bool may_map_;
  ProgressReport& progress_;
  std::vector<Tensor> tensors_;
  uint64_t total_ = 0;
  uint64_t done_ = 0;
  bool wrote_targets_ = false;
};

double Seconds(std::chrono::nanoseconds duration) { return std::chrono::duration<double>(duration).count(); }

py::dict ResultOf(const PullResult& result) {
  py::dict dict = ToDict(result.version);
  dict["seconds"] = Seconds(result.elapsed);
  dict["waited_seconds"] = Seconds(result.waited);
  dict["resumed"] = result.resumed;
  dict["not_mapped"] = result.not_mapped;
  dict["skipped"] = result.skipped;
  return dict;
}

// A connection, and the memory that its pulls reuse.
class PythonSubscriber {
 public:
  PythonSubscriber(const ChannelOptions& channel, CancelFlag& flag)
      : subscriber_(
            Connected(channel, flag, [](const ChannelOptions& options) { return Subscriber::Connect(options); })) {}

  // (what the version is, its tensors). The exception of a pull that failed with some of `targets` written has
  // `torn` set.
  py::tuple Pull(const PullOptions& options, const Targets& targets, bool may_map, const py::object& on_progress) {
    ProgressReport progress(on_progress);
    Sink sink(pool_, targets, may_map, progress);
    absl::StatusOr<PullResult> result;
    RunInterruptible([&] { result = subscriber_->Pull(options, sink); }, [&] { subscriber_->Cancel(); });
    if (!result.ok()) Fail(result.status(), sink.wrote_targets());
    return py::make_tuple(ResultOf(*result), std::move(sink.tensors()));
  }

  // Calls `on_event` with each state until it says False.
  void Watch(const WatchOptions& options, const py::object& on_event) {
    absl::Status status;
    const auto tell = [&](const v1::VersionSummary& version) {
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

const std::map<std::string, LayoutRule::Scope>& Scopes() {
  static const std::map<std::string, LayoutRule::Scope> scopes = {{"any", LayoutRule::Scope::kAny},
                                                                  {"experts", LayoutRule::Scope::kExperts},
                                                                  {"ordinary", LayoutRule::Scope::kOrdinary}};
  return scopes;
}

const std::map<std::string, Split>& Splits() {
  static const std::map<std::string, Split> splits = {{"balanced", Split::kBalanced}, {"ceil", Split::kCeil}};
  return splits;
}

template <typename Value>
std::string NameOf(const std::map<std::string, Value>& names, Value value) {
  const auto is_meant = [&](const auto& named) { return named.second == value; };
  return std::find_if(names.begin(), names.end(), is_meant)->first;
}

LayoutRule MakeRule(uint32_t dimension, uint64_t part, uint64_t parts, const std::string& pattern,
                    const std::string& scope, const std::string& split) {
  const std::map<std::string, LayoutRule::Scope>& scopes = Scopes();
  const std::map<std::string, Split>& splits = Splits();
  if (scopes.count(scope) == 0 || splits.count(split) == 0) {
    throw StatusError(absl::InvalidArgumentError(
        absl::StrCat("rule of scope '", scope, "' (any, experts, ordinary) and split '", split, "' (balanced, ceil)")));
  }
  return {scopes.at(scope), pattern, dimension, part, parts, splits.at(split)};
}

// MakeRule's arguments.
py::tuple StateOfRule(const LayoutRule& rule) {
  return py::make_tuple(rule.dimension, rule.part, rule.parts, rule.pattern, NameOf(Scopes(), rule.scope),
                        NameOf(Splits(), rule.split));
}

LayoutRule RuleOfState(const py::tuple& state) {
  return MakeRule(state[0].cast<uint32_t>(), state[1].cast<uint64_t>(), state[2].cast<uint64_t>(),
                  state[3].cast<std::string>(), state[4].cast<std::string>(), state[5].cast<std::string>());
}

PullOptions MakePullOptions(const std::string& model, std::optional<uint64_t> version, const std::string& filter,
                            const std::vector<std::string>& names, const std::vector<LayoutRule>& rules,
                            const std::vector<std::pair<std::string, Box>>& boxes, const std::string& worker,
                            std::optional<uint64_t> installed, double idle_timeout, double resume_within,
                            std::optional<uint64_t> trainer_epoch, uint64_t life) {
  PullOptions options;
  options.model = model;
  options.version = version;
  options.trainer_epoch = trainer_epoch;
  options.life = life;
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

// The engine's side of a worker: Python functions that it calls.
class PythonWorker {
 public:
  // `install(dict, tensors)`; `on_error(exception)` or None. `targets`: memory in use, written in place.
  PythonWorker(const ChannelOptions& channel, CancelFlag& flag, const PullOptions& pull, Targets targets, bool in_place,
               uint64_t max_version_step, bool accept_new_run, py::object install, py::object on_error)
      : targets_(std::move(targets)), install_(std::move(install)), on_error_(std::move(on_error)) {
    WorkerOptions options;
    options.pull = pull;
    options.in_place = in_place;
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

  // Until Stop, or until `done()` says so.
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

  // What `install` raised is raised again, rather than what became of it.
  py::dict Installed(absl::FunctionRef<absl::StatusOr<v1::VersionSummary>()> refit) {
    absl::StatusOr<v1::VersionSummary> version;
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

  // With the GIL held. An error of the engine's leaves the old version in use; what is to end the program goes through.
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
    version["not_mapped"] = staged.not_mapped;
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
  py::object raised_ = py::none();  // by `install`, since it was last told of
  std::unique_ptr<Worker> worker_;
};

}  // namespace

void BindWorker(py::module_& module) {
  py::class_<LayoutRule>(module, "Rule")
      .def(py::init(&MakeRule), py::kw_only(), py::arg("dimension"), py::arg("part"), py::arg("parts"),
           py::arg("pattern") = "", py::arg("scope") = "any", py::arg("split") = "balanced")
      .def("__repr__", [](const LayoutRule& rule) { return absl::StrCat("Rule(", rule.ToString(), ")"); })
      .def("__eq__", [](const LayoutRule& a, const LayoutRule& b) { return StateOfRule(a).equal(StateOfRule(b)); })
      .def(py::pickle(&StateOfRule, &RuleOfState));

  py::class_<PullOptions>(module, "PullOptions")
      .def(py::init(&MakePullOptions), py::kw_only(), py::arg("model"), py::arg("version"), py::arg("filter"),
           py::arg("names"), py::arg("rules"), py::arg("boxes"), py::arg("worker"), py::arg("installed"),
           py::arg("idle_timeout"), py::arg("resume_within"), py::arg("trainer_epoch"), py::arg("life"));

  py::class_<Targets>(module, "Targets")
      .def(py::init<>())
      .def("add", &Targets::Add, py::arg("expected"), py::arg("memory"));

  py::class_<PythonSubscriber>(module, "Subscriber")
      .def(py::init<const ChannelOptions&, CancelFlag&>(), py::arg("channel"), py::arg("cancel"))
      .def("pull", &PythonSubscriber::Pull, py::arg("options"), py::arg("targets"), py::arg("may_map"),
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

  py::class_<PythonWorker>(module, "Worker")
      .def(py::init<const ChannelOptions&, CancelFlag&, const PullOptions&, Targets, bool, uint64_t, bool, py::object,
                    py::object>(),
           py::kw_only(), py::arg("channel"), py::arg("cancel"), py::arg("pull"), py::arg("targets"),
           py::arg("in_place"), py::arg("max_version_step"), py::arg("accept_new_run"), py::arg("install"),
           py::arg("on_error"))
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
