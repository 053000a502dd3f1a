// Runs many cases of a property on a few threads, since they mostly wait to go on after a cut.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"

namespace refit {

// Calls `run` with 0 to `cases` - 1, in any order, until one has failed.
inline void RunCases(int cases, const std::function<void(int)>& run) {
  constexpr int kThreads = 4;
  std::vector<std::thread> threads;
  threads.reserve(kThreads);
  for (int first = 0; first < kThreads; ++first) {
    threads.emplace_back([&, first] {
      for (int i = first; i < cases && !::testing::Test::HasFailure(); i += kThreads) {
        SCOPED_TRACE(absl::StrCat("case ", i));
        run(i);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace refit
