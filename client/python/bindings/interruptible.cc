#include "client/python/bindings/interruptible.h"

#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>

#include "client/python/bindings/ending.h"
#include "client/python/bindings/gil.h"
#include "client/python/bindings/status_error.h"
#include "refit/fork_guard.h"

namespace refit::python {
namespace {

namespace py = pybind11;

// How often signals are checked.
constexpr std::chrono::milliseconds kGlance{50};

bool IsMainThread() {
  return InPython([] {
    const py::module_ threading = py::module_::import("threading");
    return threading.attr("current_thread")().is(threading.attr("main_thread")());
  });
}

// Calls Python code during the work, and keeps what it throws.
class Calls {
 public:
  Calls(absl::FunctionRef<void()> cancel, WithoutGil& no_gil) : cancel_(cancel), no_gil_(no_gil) {}

  // Runs in the calling thread, which does not hold the GIL. If the callback throws, cancels the work and returns
  // false.
  bool Call(absl::FunctionRef<void()> callback) {
    bool returned = false;
    no_gil_.With([&] {
      try {
        InPython(callback);
        returned = true;
      } catch (...) {
        if (thrown_ == nullptr) thrown_ = std::current_exception();
      }
    });
    if (!returned) cancel_();
    return returned;
  }

  void LookForSignals() {
    if (thrown_ != nullptr) return;
    Call([] {
      if (PyErr_CheckSignals() != 0) throw py::error_already_set();
    });
  }

  std::exception_ptr thrown() const { return thrown_; }

 private:
  const absl::FunctionRef<void()> cancel_;
  WithoutGil& no_gil_;
  std::exception_ptr thrown_;  // the first exception
};

// The working thread uses it to have the main thread call Python.
class Desk {
 public:
  explicit Desk(Calls& calls) : calls_(calls) {}

  // Called by the working thread.
  bool Ask(absl::FunctionRef<void()> callback) {
    std::unique_lock lock(mutex_);
    asked_ = &callback;
    changed_.notify_all();
    changed_.wait(lock, [this] { return asked_ == nullptr; });
    return answer_;
  }
  void Done() {
    const std::lock_guard lock(mutex_);
    done_ = true;
    changed_.notify_all();
  }

  // Called by the main thread without the GIL. Runs until Done, or until a callback has forked and returns in the
  // child, which has no working thread.
  void Serve() {
    const ForkGuard guard;
    std::unique_lock lock(mutex_);
    while (true) {
      changed_.wait_for(lock, kGlance, [this] { return done_ || asked_ != nullptr; });
      if (asked_ != nullptr) {
        const absl::FunctionRef<void()> callback = *asked_;
        lock.unlock();
        const bool answer = calls_.Call(callback);
        if (guard.forked()) return;
        lock.lock();
        answer_ = answer;
        asked_ = nullptr;
        changed_.notify_all();
      } else if (done_) {
        return;
      } else {
        lock.unlock();
        calls_.LookForSignals();
        lock.lock();
      }
    }
  }

 private:
  Calls& calls_;
  std::mutex mutex_;
  std::condition_variable changed_;
  const absl::FunctionRef<void()>* asked_ = nullptr;  // until the main thread has called it
  bool answer_ = false;
  bool done_ = false;
};

// How this thread, which does the work, calls Python.
thread_local Calls* direct_calls = nullptr;
thread_local Desk* main_desk = nullptr;

void WorkHere(absl::FunctionRef<void()> work, Calls& calls) {
  Calls* const outer = direct_calls;
  direct_calls = &calls;
  work();
  direct_calls = outer;
}

// Work in a thread of its own, and the desk that it uses.
struct Beside {
  Beside(absl::FunctionRef<void()> work, Calls& calls)
      : desk(calls), worker([this, work] {
          main_desk = &desk;
          work();
          desk.Done();
        }) {}

  Desk desk;
  std::thread worker;
};

void WorkBeside(absl::FunctionRef<void()> work, Calls& calls) {
  const OwnedByProcess<Beside> beside = MakeOwnedByProcess<Beside>(work, calls);
  beside->desk.Serve();
  if (!beside.get_deleter().guard.forked()) beside->worker.join();
}

}  // namespace

bool CallPython(absl::FunctionRef<void()> callback) {
  return main_desk != nullptr ? main_desk->Ask(callback) : direct_calls->Call(callback);
}

void RunInterruptible(absl::FunctionRef<void()> work, absl::FunctionRef<void()> cancel) {
  const ForkGuard guard;
  const bool is_main = IsMainThread();
  std::exception_ptr thrown;
  {
    NativeCall call(cancel);
    WithoutGil no_gil;
    Calls calls(cancel, no_gil);
    is_main ? WorkBeside(work, calls) : WorkHere(work, calls);
    thrown = calls.thrown();
    if (!guard.forked()) call.Done();
  }
  if (thrown != nullptr) std::rethrow_exception(thrown);
  Check(guard.Check("the call"));  // a callback may have forked, and this may be the child
}

}  // namespace refit::python
