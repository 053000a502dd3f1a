// Shows ThreadSanitizer the locks of an Abseil that was built without it.
//
// Packaged Abseil has no annotations, so that to ThreadSanitizer every absl::Mutex, ours and gRPC's, would be no lock
// at all and everything it guards a race. The functions below take the place of Abseil's (the dynamic linker prefers
// the program's definitions, for calls from shared libraries too), tell ThreadSanitizer, and call the originals. Linked
// into every program of the tsan preset and into nothing else.
#include <dlfcn.h>
#include <sanitizer/tsan_interface.h>

#include <cstdlib>
#include <string>

#include "absl/base/config.h"
#include "absl/synchronization/mutex.h"
#include "tests/tsan/grpc_handoff.h"

// From the linker: where the program's code begins and ends.
extern "C" char __executable_start, etext;  // NOLINT

namespace {

// Finds Abseil's own definition of a member function, given the end of its mangled name.
template <typename Result, typename... Arguments>
class Original {
 public:
  explicit Original(const char* mangled_end) {
    const std::string space = ABSL_INTERNAL_TOKEN_STR(ABSL_OPTION_INLINE_NAMESPACE_NAME);
    const std::string symbol = "_ZN4absl" + std::to_string(space.size()) + space + mangled_end;
    *reinterpret_cast<void**>(&function_) = dlsym(RTLD_NEXT, symbol.c_str());
    if (function_ == nullptr) std::abort();
  }
  Result operator()(Arguments... arguments) const { return function_(arguments...); }

 private:
  Result (*function_)(Arguments...) = nullptr;
};

constexpr unsigned kExclusive = __tsan_mutex_not_static;
constexpr unsigned kShared = __tsan_mutex_not_static | __tsan_mutex_read_lock;

// Whether code lies in the program itself rather than in a shared library.
bool IsOurs(const void* code) { return code >= &__executable_start && code < &etext; }

// Abseil's functions call one another: only the outermost call of a thread speaks to ThreadSanitizer.
thread_local bool inside = false;

class Inside {
 public:
  Inside() { inside = true; }
  ~Inside() { inside = false; }
  Inside(const Inside&) = delete;
  Inside& operator=(const Inside&) = delete;
};

template <typename Acquire>
auto Acquiring(absl::Mutex* mutex, unsigned flags, Acquire acquire) {
  if (inside) return acquire();
  struct PostLock {
    absl::Mutex* mutex;
    unsigned flags;
    ~PostLock() { __tsan_mutex_post_lock(mutex, flags, 0); }
  };
  __tsan_mutex_pre_lock(mutex, flags);
  const PostLock post_lock{mutex, flags};
  const Inside now_inside;
  return acquire();
}

template <typename Acquire>
bool Trying(absl::Mutex* mutex, unsigned flags, Acquire acquire) {
  if (inside) return acquire();
  flags |= __tsan_mutex_try_lock;
  __tsan_mutex_pre_lock(mutex, flags);
  const Inside now_inside;
  const bool acquired = acquire();
  __tsan_mutex_post_lock(mutex, acquired ? flags : flags | __tsan_mutex_try_lock_failed, 0);
  return acquired;
}

template <typename Release>
void Releasing(absl::Mutex* mutex, unsigned flags, Release release) {
  if (inside) return release();
  __tsan_mutex_pre_unlock(mutex, flags);
  {
    const Inside now_inside;
    release();
  }
  __tsan_mutex_post_unlock(mutex, flags);
}

// A wait gives the mutex up and takes it again. Conditions that other threads evaluate meanwhile hold it.
template <typename Wait>
auto Waiting(absl::Mutex* mutex, Wait wait) {
  if (inside) return wait();
  __tsan_mutex_pre_unlock(mutex, 0);
  __tsan_mutex_post_unlock(mutex, 0);
  return Acquiring(mutex, kExclusive, wait);
}

}  // namespace

namespace absl {
ABSL_NAMESPACE_BEGIN

Mutex::~Mutex() {
  static const Original<void, Mutex*> original("5MutexD1Ev");
  original(this);
  __tsan_mutex_destroy(this, __tsan_mutex_not_static);
}

void Mutex::Lock() {
  static const Original<void, Mutex*> original("5Mutex4LockEv");
  Acquiring(this, kExclusive, [this] { original(this); });
  if (!IsOurs(__builtin_return_address(0))) refit::tsan::AcquireHandoffs();
}

void Mutex::Unlock() {
  static const Original<void, Mutex*> original("5Mutex6UnlockEv");
  Releasing(this, 0, [this] { original(this); });
}

bool Mutex::TryLock() {
  static const Original<bool, Mutex*> original("5Mutex7TryLockEv");
  return Trying(this, kExclusive, [this] { return original(this); });
}

void Mutex::ReaderLock() {
  static const Original<void, Mutex*> original("5Mutex10ReaderLockEv");
  Acquiring(this, kShared, [this] { original(this); });
}

void Mutex::ReaderUnlock() {
  static const Original<void, Mutex*> original("5Mutex12ReaderUnlockEv");
  Releasing(this, __tsan_mutex_read_lock, [this] { original(this); });
}

void Mutex::LockWhen(const Condition& condition) {
  static const Original<void, Mutex*, const Condition&> original("5Mutex8LockWhenERKNS0_9ConditionE");
  Acquiring(this, kExclusive, [&] { original(this, condition); });
}

bool Mutex::LockWhenWithTimeout(const Condition& condition, Duration timeout) {
  static const Original<bool, Mutex*, const Condition&, Duration> original(
      "5Mutex19LockWhenWithTimeoutERKNS0_9ConditionENS0_8DurationE");
  return Acquiring(this, kExclusive, [&] { return original(this, condition, timeout); });
}

bool Mutex::LockWhenWithDeadline(const Condition& condition, Time deadline) {
  static const Original<bool, Mutex*, const Condition&, Time> original(
      "5Mutex20LockWhenWithDeadlineERKNS0_9ConditionENS0_4TimeE");
  return Acquiring(this, kExclusive, [&] { return original(this, condition, deadline); });
}

void Mutex::Await(const Condition& condition) {
  static const Original<void, Mutex*, const Condition&> original("5Mutex5AwaitERKNS0_9ConditionE");
  return Waiting(this, [&] { return original(this, condition); });
}

bool Mutex::AwaitWithTimeout(const Condition& condition, Duration timeout) {
  static const Original<bool, Mutex*, const Condition&, Duration> original(
      "5Mutex16AwaitWithTimeoutERKNS0_9ConditionENS0_8DurationE");
  return Waiting(this, [&] { return original(this, condition, timeout); });
}

bool Mutex::AwaitWithDeadline(const Condition& condition, Time deadline) {
  static const Original<bool, Mutex*, const Condition&, Time> original(
      "5Mutex17AwaitWithDeadlineERKNS0_9ConditionENS0_4TimeE");
  return Waiting(this, [&] { return original(this, condition, deadline); });
}

void CondVar::Wait(Mutex* mutex) {
  static const Original<void, CondVar*, Mutex*> original("7CondVar4WaitEPNS0_5MutexE");
  return Waiting(mutex, [&] { return original(this, mutex); });
}

bool CondVar::WaitWithTimeout(Mutex* mutex, Duration timeout) {
  static const Original<bool, CondVar*, Mutex*, Duration> original(
      "7CondVar15WaitWithTimeoutEPNS0_5MutexENS0_8DurationE");
  return Waiting(mutex, [&] { return original(this, mutex, timeout); });
}

bool CondVar::WaitWithDeadline(Mutex* mutex, Time deadline) {
  static const Original<bool, CondVar*, Mutex*, Time> original("7CondVar16WaitWithDeadlineEPNS0_5MutexENS0_4TimeE");
  return Waiting(mutex, [&] { return original(this, mutex, deadline); });
}

ABSL_NAMESPACE_END
}  // namespace absl
