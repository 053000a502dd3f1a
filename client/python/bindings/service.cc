#include "client/python/bindings/service.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/python/bindings/check_renamed.h"
#include "client/python/bindings/convert.h"
#include "client/python/bindings/ending.h"
#include "client/python/bindings/gil.h"
#include "client/python/bindings/interruptible.h"
#include "client/python/bindings/local_push.h"
#include "client/python/bindings/status_error.h"
#include "common/net/status.h"
#include "refit/relay.h"
#include "refit/server.h"
#include "server/process/descriptor_limit.h"
#include "server/process/limit_warnings.h"
#include "server/settings.h"

namespace refit::python {
namespace {

namespace py = pybind11;

absl::Status Set(const std::vector<Setting>& settings, const std::string& argument, const std::string& value) {
  const auto is_meant = [&](const Setting& setting) { return setting.argument == argument; };
  const auto setting = std::find_if(settings.begin(), settings.end(), is_meant);
  if (setting == settings.end()) return absl::InvalidArgumentError(absl::StrCat("no setting '", argument, "'"));
  return Annotate(setting->set(value), argument);
}

// The arguments' names, with refit-server's help texts. A test compares the documentation with them.
py::dict DescribeSettings() {
  ServerOptions options;
  LogOptions log;
  py::dict described;
  for (const Setting& setting : SettingsOf(options, log)) {
    described[py::str(setting.argument)] = py::make_tuple(setting.flag, setting.value, setting.help);
  }
  return described;
}

// Warnings for Python, which any thread may add. The next call from Python shows them. Thread-safe.
class Warnings {
 public:
  void Add(std::string warning) {
    const std::lock_guard lock(mutex_);
    untold_.push_back(std::move(warning));
  }
  std::vector<std::string> Take() {
    const std::lock_guard lock(mutex_);
    return std::exchange(untold_, {});
  }

 private:
  std::mutex mutex_;
  std::vector<std::string> untold_;
};
class Service {
 public:
  // Settings as text, by argument name.
  explicit Service(const std::map<std::string, std::string>& given) {
    ServerOptions options;
    LogOptions log;
    const std::vector<Setting> settings = SettingsOf(options, log);
    for (const auto& [argument, value] : given) Check(Set(settings, argument, value));
    options.log = log.Make();
    options.store.on_unshared = [warnings = warnings_](const absl::Status& why) {
      warnings->Add(absl::StrCat(
          "memory for tensors is no longer shared, workers on this host get it over the connection: ", why.message()));
    };
    RaiseDescriptorLimit();
    for (const std::string& warning : LimitWarnings(options.store.memory_budget_bytes))
      warnings_->Add(WithArgumentNames(warning));
    absl::StatusOr<std::unique_ptr<RefitServer>> server;
    RunInterruptible([&] { server = StartServer(options); }, [] {});
    CheckRenamed(server.status());
    server_ = *std::move(server);
    end_.emplace([ended = server_] { ended->Shutdown(std::chrono::milliseconds::zero()); });
  }
  ~Service() {
    end_.reset();
    const WithoutGil no_gil;
    server_.reset();
  }
  Service(const Service&) = delete;
  Service& operator=(const Service&) = delete;

  std::vector<std::string> addresses() const { return server_->addresses(); }
  std::string metrics_address() const { return server_->metrics_address(); }
  std::vector<std::string> TakeWarnings() { return warnings_->Take(); }

  std::unique_ptr<LocalPush> Open(const PublishOptions& options, const std::vector<TensorPart>& tensors) {
    std::vector<TensorSpec> native;
    native.reserve(tensors.size());
    for (const TensorPart& tensor : tensors) native.push_back(tensor.tensor);
    return LocalPush::Open(server_, is_closed_, options, std::move(native));
  }

  void Shutdown(double grace) {
    *is_closed_ = true;
    RunInterruptible([&] { server_->Shutdown(Milliseconds(grace)); }, [&] { server_->CancelCalls(); });
  }

 private:
  const std::shared_ptr<Warnings> warnings_ = std::make_shared<Warnings>();
  const std::shared_ptr<std::atomic<bool>> is_closed_ = std::make_shared<std::atomic<bool>>(false);
  std::shared_ptr<RefitServer> server_;
  std::optional<NativeService> end_;
};

}  // namespace

void BindService(py::module_& module) {
  module.def("settings", &DescribeSettings);

  py::class_<LocalPush>(module, "LocalPush")
      .def("summary", &LocalPush::Summary)
      .def("unneeded", &LocalPush::Unneeded, py::arg("index"))
      .def("append", &LocalPush::Append, py::arg("items"), py::arg("until_read"))
      .def("commit", &LocalPush::Commit)
      .def("abort", &LocalPush::Abort, py::arg("reason"));

  py::class_<Service>(module, "Service")
      .def(py::init<const std::map<std::string, std::string>&>(), py::arg("settings"))
      .def("addresses", &Service::addresses)
      .def("metrics_address", &Service::metrics_address)
      .def("take_warnings", &Service::TakeWarnings)
      .def("open", &Service::Open, py::arg("options"), py::arg("tensors"))
      .def("shutdown", &Service::Shutdown, py::arg("grace"));
}

}  // namespace refit::python
