#include "client/cli/run/end_process.h"

#include <cstdio>
#include <cstdlib>

// Coverage and the leak checker run these at exit. Other builds do not have them.
extern "C" void __gcov_dump() __attribute__((weak));           // NOLINT(bugprone-reserved-identifier)
extern "C" void __lsan_do_leak_check() __attribute__((weak));  // NOLINT(bugprone-reserved-identifier)

namespace refit::cli {

void EndProcess(int code) {
  (void)std::fflush(nullptr);
  if (__gcov_dump != nullptr) __gcov_dump();
  if (__lsan_do_leak_check != nullptr) __lsan_do_leak_check();
  std::_Exit(code);
}

}  // namespace refit::cli
