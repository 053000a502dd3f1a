#include "refit/fork_guard.h"

#include <pthread.h>

#include <atomic>

#include "absl/strings/str_cat.h"

namespace refit {
namespace {

std::atomic<uint64_t> generation{0};
std::atomic<uint64_t> forks_begun{0};

// fork() calls these functions. vfork() and posix_spawn() do not, but their children use no objects of ours.
[[maybe_unused]] const int registered = pthread_atfork([] { ++forks_begun; }, nullptr, [] { ++generation; });

}  // namespace

uint64_t ProcessGeneration() { return generation; }

uint64_t ForksBegun() { return forks_begun; }

absl::Status ForkGuard::Check(absl::string_view what) const {
  if (!forked()) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(what,
                   " is the parent's: this process is a fork of it, without its threads, and would end its "
                   "connections. Start the process anew (multiprocessing's \"spawn\" or \"forkserver\"; for vLLM "
                   "VLLM_WORKER_MULTIPROCESSING_METHOD=spawn), or fork before refit first connects or serves"));
}

}  // namespace refit
