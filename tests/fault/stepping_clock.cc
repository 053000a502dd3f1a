// Preloaded into a program (LD_PRELOAD), gives it a wall clock that steps as if settimeofday() had been called: it is
// ahead of the system's by the seconds that stand in the file $STEPPING_CLOCK, now and as they change. For whoever
// reads the time, and for whoever sleeps until a time of day (futexes with FUTEX_CLOCK_REALTIME, as Abseil has them).
// The steady clock is left alone.
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdint>
#include <cstdlib>
#include <ctime>

namespace {

using Ns = int64_t;
constexpr Ns kSecond = 1'000'000'000;
// How soon a sleeper notices a step. The kernel's own sleepers notice it at once.
constexpr Ns kSlice = 20'000'000;

// Calls the system directly, without libc's functions, which this library replaces.
long Raw(long number, long a, long b, long c, long d, long e, long f) {
  long result = 0;
  register long r10 __asm__("r10") = d;
  register long r8 __asm__("r8") = e;
  register long r9 __asm__("r9") = f;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                   : "rcx", "r11", "memory");
  return result;
}

const volatile int64_t* MapSteps() {
  const char* path = std::getenv("STEPPING_CLOCK");
  if (path == nullptr) return nullptr;
  const long fd = Raw(SYS_openat, AT_FDCWD, reinterpret_cast<long>(path), O_RDONLY | O_CLOEXEC, 0, 0, 0);
  if (fd < 0) return nullptr;
  const long mapped = Raw(SYS_mmap, 0, sizeof(int64_t), PROT_READ, MAP_SHARED, fd, 0);
  Raw(SYS_close, fd, 0, 0, 0, 0, 0);
  return mapped < 0 && mapped > -4096 ? nullptr : reinterpret_cast<const volatile int64_t*>(mapped);
}

Ns Ahead() {
  static std::atomic<const volatile int64_t*> steps{nullptr};
  static std::atomic<bool> tried{false};
  if (!tried.exchange(true)) steps = MapSteps();
  const volatile int64_t* const seconds = steps;
  return seconds == nullptr ? 0 : *seconds * kSecond;
}

Ns ToNs(const timespec& time) { return time.tv_sec * kSecond + time.tv_nsec; }
timespec FromNs(Ns ns) { return {ns / kSecond, ns % kSecond}; }

bool IsWall(clockid_t clock) { return clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE; }

Ns SystemsWallClock() {
  timespec now = {};
  Raw(SYS_clock_gettime, CLOCK_REALTIME, reinterpret_cast<long>(&now), 0, 0, 0, 0);
  return ToNs(now);
}

// Sleeps until the stepping clock says `until`, in slices.
long FutexUntil(long word, long operation, long value, Ns until, long word2, long value3) {
  while (true) {
    const Ns now = SystemsWallClock();
    const Ns end = std::min(until - Ahead(), now + kSlice);
    const timespec slice = FromNs(std::max<Ns>(end, 0));
    const long result = Raw(SYS_futex, word, operation, value, reinterpret_cast<long>(&slice), word2, value3);
    if (result != -ETIMEDOUT || SystemsWallClock() + Ahead() >= until) return result;
  }
}

}  // namespace

extern "C" {

int clock_gettime(clockid_t clock, timespec* time) noexcept {
  const long result = Raw(SYS_clock_gettime, clock, reinterpret_cast<long>(time), 0, 0, 0, 0);
  if (result < 0) {
    errno = static_cast<int>(-result);
    return -1;
  }
  if (IsWall(clock)) *time = FromNs(ToNs(*time) + Ahead());
  return 0;
}

int gettimeofday(timeval* time, void* /*zone*/) noexcept {
  const Ns now = SystemsWallClock() + Ahead();
  *time = {now / kSecond, now % kSecond / 1000};
  return 0;
}

time_t time(time_t* time) noexcept {
  const time_t now = (SystemsWallClock() + Ahead()) / kSecond;
  if (time != nullptr) *time = now;
  return now;
}

long syscall(long number, ...) noexcept {
  va_list list;
  va_start(list, number);
  long a[6];
  for (long& argument : a) argument = va_arg(list, long);
  va_end(list);
  const bool sleeps_until = number == SYS_futex && (a[1] & FUTEX_CLOCK_REALTIME) != 0 && a[3] != 0;
  const long result = sleeps_until
                          ? FutexUntil(a[0], a[1], a[2], ToNs(*reinterpret_cast<const timespec*>(a[3])), a[4], a[5])
                          : Raw(number, a[0], a[1], a[2], a[3], a[4], a[5]);
  if (result < 0 && result > -4096) {
    errno = static_cast<int>(-result);
    return -1;
  }
  return result;
}

}  // extern "C"
