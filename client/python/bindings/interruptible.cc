#include "client/python/bindings/interruptible.h"

#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>

namespace refit::python {
namespace {

namespace py = pybind11;

// How soon a signal is noticed.
constexpr std::chrono::milliseconds kGlance{50};

bool IsMainThread() {
  const py::module_ threading = py::module_::import("threading");
  return threading.attr("current_thread")().is(threading.attr("main_thread")());
}

// What came of Python code that was called in between.
class Calls {
 public:
  explicit Calls(absl::FunctionRef<void()> cancel) : cancel_(cancel) {}

  // In the calling thread, without the GIL. False, and the work is cancelled, if it throws.
  bool Call(absl::FunctionRef<void()> callback) {
    {
      const py::gil_scoped_acquire gil;
      try {
        callback();
        return true;
      } catch (...) {
        if (thrown_ == nullptr) thrown_ = std::current_exception();
      }
    }
    cancel_();
    return false;
  }

  void LookForSignals() {
    if (thrown_ != nullptr) return;
    Call([] {
      if (PyErr_CheckSignals() != 0) throw py::error_already_set();
    });
  }

  void Rethrow() const {
    if (thrown_ != nullptr) std::rethrow_exception(thrown_);
  }

 private:
  const absl::FunctionRef<void()> cancel_;
  std::exception_ptr thrown_;  // the first
};

// Where the working thread asks the main thread to call Python.
class Desk {
 public:
  explicit Desk(Calls& calls) : calls_(calls) {}

  // From the working thread.
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

  // From the main thread, without the GIL, until Done.
  void Serve() {
    std::unique_lock lock(mutex_);
    while (true) {
      changed_.wait_for(lock, kGlance, [this] { return done_ || asked_ != nullptr; });
      if (asked_ != nullptr) {
        const absl::FunctionRef<void()> callback = *asked_;
        lock.unlock();
        const bool answer = calls_.Call(callback);
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
  const absl::FunctionRef<void()>* asked_ = nullptr;  // until it is answered
  bool answer_ = false;
  bool done_ = false;
};

// Of the thread that works: how it calls Python.
thread_local Calls* direct_calls = nullptr;
thread_local Desk* main_desk = nullptr;

void WorkHere(absl::FunctionRef<void()> work, Calls& calls) {
  Calls* const outer = direct_calls;
  direct_calls = &calls;
  work();
  direct_calls = outer;
}

void WorkBeside(absl::FunctionRef<void()> work, Calls& calls) {
  Desk desk(calls);
  std::thread worker([&] {
    main_desk = &desk;
    work();
    desk.Done();
  });
  desk.Serve();
  worker.join();
}

}  // namespace

bool CallPython(absl::FunctionRef<void()> callback) {
  return main_desk != nullptr ? main_desk->Ask(callback) : direct_calls->Call(callback);
}

void RunInterruptible(absl::FunctionRef<void()> work, absl::FunctionRef<void()> cancel) {
  const bool is_main = IsMainThread();
  Calls calls(cancel);
  {
    const py::gil_scoped_release no_gil;
    is_main ? WorkBeside(work, calls) : WorkHere(work, calls);
  }
  calls.Rethrow();
}

}  // namespace refit::python
