#include "client/python/bindings/service.h"

#include <pybind11/stl.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/python/bindings/convert.h"
#include "client/python/bindings/interruptible.h"
#include "client/python/bindings/status_error.h"
#include "client/python/bindings/tensor.h"
#include "common/net/status.h"
#include "common/tensor/memory_probe.h"
#include "server/refit_server.h"
#include "server/version_builder.h"

namespace refit::python {
namespace {

namespace py = pybind11;

using Items = std::vector<std::pair<size_t, Lent>>;  // index of a tensor, and its bytes

// What cannot be interrupted: it ends by itself.
absl::Status Finish(absl::FunctionRef<absl::Status()> work) {
  const py::gil_scoped_release no_gil;
  return work();
}

// A version under way, and the service that it needs.
class LocalPush {
 public:
  LocalPush(std::shared_ptr<RefitServer> server, std::unique_ptr<VersionBuilder> builder)
      : server_(std::move(server)), builder_(std::move(builder)) {}

  py::dict Summary() const { return ToDict(builder_->version()->Summary()); }
  bool Unneeded(size_t index) const { return builder_->is_unneeded(index); }

  // Whole tensors, in any order: converted before it returns, so that nobody reads them any more.
  void Append(const Items& items, bool /*until_read*/) {
    Check(Finish([&] {
      MemoryProbe probe;
      for (const auto& [index, lent] : items) {
        if (absl::Status status = probe.CheckReadable(lent.bytes()); !status.ok()) {
          return Annotate(status, absl::StrCat("tensor ", builder_->shards()[index].ToString()));
        }
        if (absl::Status status = builder_->Append(index, 0, lent.bytes()); !status.ok()) return status;
      }
      return absl::OkStatus();
    }));
  }

  py::dict Commit() {
    absl::StatusOr<v1::VersionSummary> version;
    Check(Finish([&] {
      version = builder_->Commit();
      return version.status();
    }));
    return ToDict(*version);
  }

  void Abort(const std::string& reason) { builder_->Abort(reason); }

 private:
  const std::shared_ptr<RefitServer> server_;
  const std::unique_ptr<VersionBuilder> builder_;
};

struct Files {
  std::string certificate, key, client_ca, tokens, roles, spool;
};

class Service {
 public:
  Service(const std::string& listen, uint64_t memory, uint32_t retain, const std::string& metrics, int convert_threads,
          bool allow_plaintext, bool shared_memory, const Files& files) {
    ServerOptions options;
    options.listen = listen;
    options.allow_plaintext = allow_plaintext;
    options.security = {files.certificate, files.key, files.client_ca};
    options.authorization = {files.tokens, files.roles};
    options.store.memory_budget_bytes = memory;
    options.store.retain_versions = retain;
    options.store.shared_memory = shared_memory;
    options.spool = files.spool;
    options.metrics = metrics;
    options.convert_threads = convert_threads;
    absl::StatusOr<std::unique_ptr<RefitServer>> server;
    RunInterruptible([&] { server = RefitServer::Start(options); }, [] {});
    server_ = Value(std::move(server));
  }
  ~Service() {
    const py::gil_scoped_release no_gil;
    server_.reset();
  }
  Service(const Service&) = delete;
  Service& operator=(const Service&) = delete;

  std::string address() const { return server_->address(); }
  std::string metrics_address() const { return server_->metrics_address(); }

  std::unique_ptr<LocalPush> Open(const std::string& model, uint64_t version, const std::string& adapter,
                                  const std::optional<std::string>& dtype, const std::string& exclude_key_regex,
                                  const std::string& publisher, bool hold_installs, uint64_t trainer_epoch,
                                  bool allow_empty, const std::vector<TensorPart>& tensors) {
    BuildOptions options;
    options.model = model;
    options.version = version;
    options.adapter = adapter;
    options.dtype = OptionalDType(dtype);
    options.exclude_key_regex = exclude_key_regex;
    options.publisher = publisher;
    options.hold_installs = hold_installs;
    options.trainer_epoch = trainer_epoch;
    options.allow_empty = allow_empty;
    std::vector<TensorSpec> native;
    native.reserve(tensors.size());
    for (const TensorPart& tensor : tensors) native.push_back(tensor.tensor);
    absl::StatusOr<std::unique_ptr<VersionBuilder>> builder;
    Check(Finish([&] {
      builder = server_->OpenVersion(options, std::move(native));
      return builder.status();
    }));
    return std::make_unique<LocalPush>(server_, *std::move(builder));
  }

  void Shutdown(double grace) {
    RunInterruptible([&] { server_->Shutdown(Milliseconds(grace)); }, [] {});
  }

 private:
  std::shared_ptr<RefitServer> server_;
};

}  // namespace

void BindService(py::module_& module) {
  py::class_<LocalPush>(module, "LocalPush")
      .def("summary", &LocalPush::Summary)
      .def("unneeded", &LocalPush::Unneeded, py::arg("index"))
      .def("append", &LocalPush::Append, py::arg("items"), py::arg("until_read"))
      .def("commit", &LocalPush::Commit)
      .def("abort", &LocalPush::Abort, py::arg("reason"));

  py::class_<Service>(module, "Service")
      .def(py::init([](const std::string& listen, uint64_t memory, uint32_t retain, const std::string& metrics,
                       int convert_threads, bool allow_plaintext, bool shared_memory, const std::string& certificate,
                       const std::string& key, const std::string& client_ca, const std::string& tokens,
                       const std::string& roles, const std::string& spool) {
             return std::make_unique<Service>(listen, memory, retain, metrics, convert_threads, allow_plaintext,
                                              shared_memory, Files{certificate, key, client_ca, tokens, roles, spool});
           }),
           py::kw_only(), py::arg("listen"), py::arg("memory"), py::arg("retain"), py::arg("metrics"),
           py::arg("convert_threads"), py::arg("allow_plaintext"), py::arg("shared_memory"), py::arg("certificate"),
           py::arg("key"), py::arg("client_ca"), py::arg("tokens"), py::arg("roles"), py::arg("spool"))
      .def("address", &Service::address)
      .def("metrics_address", &Service::metrics_address)
      .def("open", &Service::Open, py::kw_only(), py::arg("model"), py::arg("version"), py::arg("adapter"),
           py::arg("dtype"), py::arg("exclude_key_regex"), py::arg("publisher"), py::arg("hold_installs"),
           py::arg("trainer_epoch"), py::arg("allow_empty"), py::arg("tensors"))
      .def("shutdown", &Service::Shutdown, py::arg("grace"));
}

}  // namespace refit::python
