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
#include "common/process/fork_guard.h"

namespace refit::python {

// Of this process. Guarded by the GIL, but for what has a lock.
struct UnderWay {
  const ForkGuard guard;
  std::optional<std::thread::id> ended_by;  // once the interpreter is ending
  std::list<absl::FunctionRef<void()>> calls;
  std::list<std::function<void()>> services;

  std::mutex mutex;  // never held by a thread that waits for the GIL
  std::condition_variable changed;
  size_t calls_count = 0;  // of `calls`
};

namespace {

namespace py = pybind11;

constexpr std::chrono::milliseconds kPatience{500};

// Lives as long as the process, and is left alone in its children.
UnderWay& Present() {
  static UnderWay* present = std::make_unique<UnderWay>().release();
  if (present->guard.forked()) present = std::make_unique<UnderWay>().release();
  return *present;
}

void SetCount(UnderWay& under_way) {
  const std::lock_guard lock(under_way.mutex);
  under_way.calls_count = under_way.calls.size();
  under_way.changed.notify_all();
}

void End() {
  UnderWay& under_way = Present();
  under_way.ended_by = std::this_thread::get_id();
  ReleaseNoMore();
  for (const absl::FunctionRef<void()>& cancel : under_way.calls) cancel();
  const std::vector<std::function<void()>> services(under_way.services.begin(), under_way.services.end());
  const WithoutGil no_gil;
  for (const std::function<void()>& end : services) end();
  std::unique_lock lock(under_way.mutex);
  under_way.changed.wait_for(lock, kPatience, [&] { return under_way.calls_count == 0; });
}

}  // namespace

void EndWithInterpreter() { py::module_::import("atexit").attr("register")(py::cpp_function(&End)); }

NativeCall::NativeCall(absl::FunctionRef<void()> cancel) : under_way_(Present()) {
  if (under_way_.ended_by.value_or(std::this_thread::get_id()) != std::this_thread::get_id()) {
    const WithoutGil no_gil;
    WaitForTheEnd();
  }
  place_ = under_way_.calls.insert(under_way_.calls.end(), cancel);
  SetCount(under_way_);
}

NativeCall::~NativeCall() {
  under_way_.calls.erase(place_);
  SetCount(under_way_);
}

NativeService::NativeService(std::function<void()> end)
    : under_way_(Present()), place_(under_way_.services.insert(under_way_.services.end(), std::move(end))) {}

NativeService::~NativeService() { under_way_.services.erase(place_); }

}  // namespace refit::python
