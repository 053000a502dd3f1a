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
#include "client/python/bindings/convert.h"
#include "client/python/bindings/ending.h"
#include "client/python/bindings/gil.h"
#include "client/python/bindings/interruptible.h"
#include "client/python/bindings/status_error.h"
#include "client/python/bindings/tensor.h"
#include "common/net/status.h"
#include "refit/memory_probe.h"
#include "refit/server.h"
#include "server/process/descriptor_limit.h"
#include "server/process/limit_warnings.h"
#include "server/push/version_builder.h"
#include "server/settings.h"

namespace refit::python {
namespace {

namespace py = pybind11;

using Items = std::vector<std::pair<size_t, Lent>>;  // index of a tensor, and its bytes

// What one thread converts until it looks whether it is still to go on.
constexpr uint64_t kPieceBytes = uint64_t{64} << 20;

// Work that asks `is_cancelled` now and then, and ends by itself.
absl::Status Finish(absl::FunctionRef<absl::Status(const std::atomic<bool>& is_cancelled)> work) {
  absl::Status status;
  std::atomic<bool> is_cancelled{false};
  RunInterruptible([&] { status = work(is_cancelled); }, [&] { is_cancelled = true; });
  return status;
}

// As Check, for who gave arguments rather than flags.
void CheckRenamed(const absl::Status& status) {
  if (!status.ok()) Check(absl::Status(status.code(), WithArgumentNames(status.message())));
}

// A version under way, and the service that it needs.
class LocalPush {
 public:
  LocalPush(std::shared_ptr<RefitServer> server, std::shared_ptr<const std::atomic<bool>> is_closed,
            std::unique_ptr<VersionBuilder> builder)
      : server_(std::move(server)), is_closed_(std::move(is_closed)), builder_(std::move(builder)) {}

  py::dict Summary() const { return ToDict(builder_->version()->Summary()); }
  bool Unneeded(size_t index) const { return builder_->is_unneeded(index); }

  // Whole tensors, in any order: converted before it returns, so that nobody reads them any more.
  void Append(const Items& items, bool /*until_read*/) {
    CheckRunning();
    CheckRenamed(Finish([&](const std::atomic<bool>& is_cancelled) {
      MemoryProbe probe;
      for (const auto& [index, lent] : items) {
        const absl::Span<const std::byte> bytes = lent.bytes();
        if (absl::Status status = probe.CheckReadable(bytes); !status.ok()) {
          return Annotate(status, absl::StrCat("tensor ", builder_->shards()[index].ToString()));
        }
        for (uint64_t begin = 0; begin < bytes.size(); begin += kPieceBytes) {
          if (is_cancelled) return absl::CancelledError("interrupted");
          absl::Status status = builder_->Append(index, begin, bytes.subspan(begin, kPieceBytes));
          if (!status.ok()) return status;
        }
      }
      return absl::OkStatus();
    }));
  }

  py::dict Commit() {
    CheckRunning();
    absl::StatusOr<v1::VersionSummary> version;
    CheckRenamed(Finish([&](const std::atomic<bool>& /*it is soon done*/) {
      version = builder_->Commit();
      return version.status();
    }));
    return ToDict(*version);
  }

  void Abort(const std::string& reason) { builder_->Abort(reason); }

 private:
  // No worker could get what is committed now.
  void CheckRunning() const {
    if (!*is_closed_) return;
    Check(absl::FailedPreconditionError(
        absl::StrCat("version ", builder_->version()->Label(), ": the service at ", server_->address(), " is closed")));
  }

  const std::shared_ptr<RefitServer> server_;
  const std::shared_ptr<const std::atomic<bool>> is_closed_;
  const std::unique_ptr<VersionBuilder> builder_;
};

absl::Status Set(const std::vector<Setting>& settings, const std::string& argument, const std::string& value) {
  const auto is_meant = [&](const Setting& setting) { return setting.argument == argument; };
  const auto setting = std::find_if(settings.begin(), settings.end(), is_meant);
  if (setting == settings.end()) return absl::InvalidArgumentError(absl::StrCat("no setting '", argument, "'"));
  return Annotate(setting->set(value), argument);
}

// Arguments' names, and what refit-server says of the flags: the documentation is tested against it.
py::dict DescribeSettings() {
  ServerOptions options;
  LogOptions log;
  py::dict described;
  for (const Setting& setting : SettingsOf(options, log)) {
    described[py::str(setting.argument)] = py::make_tuple(setting.flag, setting.value, setting.help);
  }
  return described;
}

// What Python is to be told, from whatever thread: told by the next call that comes from there. Thread-safe.
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
  // Settings as text, by argument.
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
    RunInterruptible([&] { server = RefitServer::Start(options); }, [] {});
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

  std::string address() const { return server_->address(); }
  std::string metrics_address() const { return server_->metrics_address(); }
  std::vector<std::string> TakeWarnings() { return warnings_->Take(); }

  std::unique_ptr<LocalPush> Open(const std::string& model, uint64_t version, const std::string& adapter,
                                  const std::optional<std::string>& dtype, const std::string& exclude_key_regex,
                                  const std::string& keep_dtype_regex, const std::string& publisher, bool hold_installs,
                                  uint64_t trainer_epoch, bool allow_empty, const std::vector<TensorPart>& tensors) {
    BuildOptions options;
    options.model = model;
    options.version = version;
    options.adapter = adapter;
    options.dtype = OptionalDType(dtype);
    options.exclude_key_regex = exclude_key_regex;
    options.keep_dtype_regex = keep_dtype_regex;
    options.publisher = publisher;
    options.hold_installs = hold_installs;
    options.trainer_epoch = trainer_epoch;
    options.allow_empty = allow_empty;
    std::vector<TensorSpec> native;
    native.reserve(tensors.size());
    for (const TensorPart& tensor : tensors) native.push_back(tensor.tensor);
    absl::StatusOr<std::unique_ptr<VersionBuilder>> builder;
    CheckRenamed(Finish([&](const std::atomic<bool>& /*it is soon done*/) {
      builder = server_->OpenVersion(options, std::move(native));
      return builder.status();
    }));
    return std::make_unique<LocalPush>(server_, is_closed_, *std::move(builder));
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
      .def("address", &Service::address)
      .def("metrics_address", &Service::metrics_address)
      .def("take_warnings", &Service::TakeWarnings)
      .def("open", &Service::Open, py::kw_only(), py::arg("model"), py::arg("version"), py::arg("adapter"),
           py::arg("dtype"), py::arg("exclude_key_regex"), py::arg("keep_dtype_regex") = "", py::arg("publisher"),
           py::arg("hold_installs"), py::arg("trainer_epoch"), py::arg("allow_empty"), py::arg("tensors"))
      .def("shutdown", &Service::Shutdown, py::arg("grace"));
}

}  // namespace refit::python
