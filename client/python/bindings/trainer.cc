#include "client/python/bindings/trainer.h"

#include <pybind11/stl.h>

#include <chrono>
#include <functional>
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
#include "client/python/bindings/loans.h"
#include "client/python/bindings/python_owner.h"
#include "client/python/bindings/status_error.h"
#include "client/python/bindings/tensor.h"
#include "common/net/status.h"
#include "refit/memory_probe.h"
#include "refit/publisher.h"

namespace refit::python {
namespace {

namespace py = pybind11;

using Shards = std::vector<TensorPart>;
using Items = std::vector<std::pair<size_t, Lent>>;  // index of a shard, and its bytes

// Looked at, and then sent, at a time. A multiple of the usual chunk sizes, which are cut anew in each.
constexpr uint64_t kProbedBytes = 8 << 20;
// More than gRPC and the kernel have under way at a time.
constexpr uint64_t kCopiedBytes = 8 << 20;

// Runs `call`; Ctrl-C cancels the publisher.
template <typename Result>
Result Run(Publisher& publisher, absl::FunctionRef<absl::StatusOr<Result>()> call) {
  std::optional<absl::StatusOr<Result>> result;
  RunInterruptible([&] { result = call(); }, [&] { publisher.Cancel(); });
  return Value(*std::move(result));
}

void RunStatus(Publisher& publisher, absl::FunctionRef<absl::Status()> call) {
  absl::Status status;
  RunInterruptible([&] { status = call(); }, [&] { publisher.Cancel(); });
  Check(status);
}

// A version under way, and the connection that it needs.
class Push {
 public:
  Push(std::shared_ptr<Publisher> publisher, std::unique_ptr<VersionPush> push, std::chrono::milliseconds timeout)
      : publisher_(std::move(publisher)), push_(std::move(push)), timeout_(timeout) {}
  // Waits for gRPC: not with the GIL.
  ~Push() {
    const WithoutGil no_gil;
    push_.reset();
  }
  Push(const Push&) = delete;
  Push& operator=(const Push&) = delete;

  py::dict Summary() const { return ToDict(push_->summary()); }
  // Whether the shard's bytes need not be at hand.
  bool Unneeded(size_t index) const { return push_->unneeded(index); }

  // Whole shards, in any order. Returns once gRPC has taken the last one; with `until_read`, once nobody reads any
  // memory that was ever lent to this push: it may be changed, and freed. The last bytes are copied then, so that the
  // network has work while it is waited for.
  void Append(const Items& items, bool until_read) {
    std::vector<std::shared_ptr<const void>> owners;
    owners.reserve(items.size());
    uint64_t rest = 0;
    for (const auto& [index, lent] : items) {
      owners.push_back(loans_.Lend(lent.owner));
      rest += lent.size;
    }
    RunStatus(*publisher_, [&] {
      MemoryProbe probe;
      for (size_t i = 0; i < items.size(); ++i) {
        const auto& [index, lent] = items[i];
        const std::shared_ptr<const void> owner = std::move(owners[i]);
        for (uint64_t begin = 0; begin < lent.size; begin += kProbedBytes) {
          const auto piece = lent.bytes().subspan(begin, kProbedBytes);
          const bool is_copied = until_read && rest <= kCopiedBytes;
          absl::Status status = AppendPiece(index, piece, is_copied ? nullptr : owner, probe);
          if (!status.ok()) return status;
          rest -= piece.size();
        }
      }
      return until_read ? loans_.AwaitNone(timeout_) : absl::OkStatus();
    });
  }

  py::dict Commit() {
    return ToDict(Run<v1::VersionSummary>(*publisher_, [&] { return push_->Commit(); }));
  }

  void Abort(const std::string& reason) {
    RunStatus(*publisher_, [&] { return push_->Abort(reason); });
  }

 private:
  // Looks at the memory, and then has it sent. Borrows it if there is an owner.
  absl::Status AppendPiece(size_t index, absl::Span<const std::byte> bytes, std::shared_ptr<const void> owner,
                           MemoryProbe& probe) {
    if (absl::Status status = probe.CheckReadable(bytes); !status.ok()) {
      return Annotate(status, absl::StrCat("tensor ", push_->shards()[index].ToString()));
    }
    return push_->Append(index, bytes, std::move(owner));
  }

  const std::shared_ptr<Publisher> publisher_;
  std::unique_ptr<VersionPush> push_;
  const std::chrono::milliseconds timeout_;
  Loans loans_;
};

std::shared_ptr<Publisher> Connect(const ChannelOptions& channel, CancelFlag& flag) {
  return Connected(channel, flag, [](const ChannelOptions& options) { return Publisher::Connect(options); });
}

// Tells Python who is waited for.
std::function<void(absl::Span<const uint32_t>)> Waiting(const py::object& on_waiting) {
  if (on_waiting.is_none()) return nullptr;
  return [callback = py::handle(on_waiting), owner = OwnedBy(on_waiting)](absl::Span<const uint32_t> missing) {
    CallPython([&] { callback(std::vector<uint32_t>(missing.begin(), missing.end())); });
  };
}

std::unique_ptr<Push> Open(const std::shared_ptr<Publisher>& publisher, const PublishOptions& options,
                           const Shards& shards) {
  auto push = Run<std::unique_ptr<VersionPush>>(*publisher, [&] { return publisher->OpenShards(options, shards); });
  return std::make_unique<Push>(publisher, std::move(push), options.timeout);
}

PublishOptions MakeOptions(const std::string& model, uint64_t version, const std::string& adapter,
                           const std::optional<std::string>& dtype, const std::string& exclude_key_regex,
                           const std::string& keep_dtype_regex, const std::string& publisher, uint32_t rank,
                           uint32_t world, bool hold_installs, uint64_t trainer_epoch, bool allow_empty,
                           double timeout) {
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
  return options;
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
  py::class_<PublishOptions>(module, "PublishOptions")
      .def(py::init(&MakeOptions), py::kw_only(), py::arg("model"), py::arg("version"), py::arg("adapter"),
           py::arg("dtype"), py::arg("exclude_key_regex"), py::arg("keep_dtype_regex") = "", py::arg("publisher"),
           py::arg("rank"), py::arg("world"), py::arg("hold_installs"), py::arg("trainer_epoch"),
           py::arg("allow_empty"), py::arg("timeout"));

  py::class_<Push>(module, "Push")
      .def("summary", &Push::Summary)
      .def("unneeded", &Push::Unneeded, py::arg("index"))
      .def("append", &Push::Append, py::arg("items"), py::arg("until_read"))
      .def("commit", &Push::Commit)
      .def("abort", &Push::Abort, py::arg("reason"));

  py::class_<Publisher, std::shared_ptr<Publisher>>(module, "Publisher")
      .def(py::init(&Connect), py::arg("channel"), py::arg("cancel"))
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
            return ToDict(Run<v1::VersionSummary>(publisher, [&] { return publisher.Abort(model, version, reason); }));
          },
          py::arg("model"), py::arg("version"), py::arg("reason"))
      .def(
          "release_installs",
          [](Publisher& publisher, const std::string& model, uint64_t version) {
            return ToDict(
                Run<v1::VersionSummary>(publisher, [&] { return publisher.ReleaseInstalls(model, version); }));
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
