#include "client/python/bindings/ending.h"

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "client/python/bindings/gil.h"
#include "client/python/bindings/python_owner.h"
#include "refit/fork_guard.h"

namespace refit::python {

// The calls and services of this process.
struct UnderWay {
  const ForkGuard guard;
  // Guarded by the GIL.
  std::list<absl::FunctionRef<void()>> calls;
  std::list<std::function<void()>> services;

  std::mutex mutex;  // guards the members below; no thread waits for the GIL while it holds this
  std::condition_variable changed;
  size_t working = 0;                       // calls that are not done
  std::optional<std::thread::id> ended_by;  // set when the interpreter begins to end

  // Whether another thread is ending the interpreter. The caller holds the mutex.
  bool is_over() const { return ended_by.has_value() && *ended_by != std::this_thread::get_id(); }
};

namespace {

namespace py = pybind11;

constexpr std::chrono::milliseconds kPatience{500};

// Lives as long as the process. Children of the process do not use it.
UnderWay& Present() {
  static UnderWay* present = std::make_unique<UnderWay>().release();
  if (present->guard.forked()) present = std::make_unique<UnderWay>().release();
  return *present;
}

void End() {
  UnderWay& under_way = Present();
  {
    const std::lock_guard lock(under_way.mutex);
    under_way.ended_by = std::this_thread::get_id();
  }
  ReleaseNoMore();
  for (const absl::FunctionRef<void()>& cancel : under_way.calls) cancel();
  const std::vector<std::function<void()>> services(under_way.services.begin(), under_way.services.end());
  const WithoutGil no_gil;
  for (const std::function<void()>& end : services) end();
  std::unique_lock lock(under_way.mutex);
  under_way.changed.wait_for(lock, kPatience, [&] { return under_way.working == 0; });
}

}  // namespace

void EndWithInterpreter() { py::module_::import("atexit").attr("register")(py::cpp_function(&End)); }

NativeCall::NativeCall(absl::FunctionRef<void()> cancel) : under_way_(Present()) {
  bool is_over = false;
  {
    const std::lock_guard lock(under_way_.mutex);
    is_over = under_way_.is_over();
    if (!is_over) ++under_way_.working;
  }
  if (is_over) {
    const WithoutGil no_gil;
    WaitForTheEnd();
  }
  place_ = under_way_.calls.insert(under_way_.calls.end(), cancel);
}

void NativeCall::Done() {
  bool is_over = false;
  {
    const std::lock_guard lock(under_way_.mutex);
    --under_way_.working;
    under_way_.changed.notify_all();
    is_over = under_way_.is_over();
  }
  if (is_over) WaitForTheEnd();
}

NativeCall::~NativeCall() { under_way_.calls.erase(place_); }

NativeService::NativeService(std::function<void()> end)
    : under_way_(Present()), place_(under_way_.services.insert(under_way_.services.end(), std::move(end))) {}

NativeService::~NativeService() { under_way_.services.erase(place_); }

}  // namespace refit::python
