// Runs code in a child of a fork.
#pragma once

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>

namespace refit {

// The exit code of a child that calls `act`: the value that `act` returns, or 200 plus the signal that ended the child.
// If it hangs, SIGALRM ends it (214).
inline int InChild(const std::function<int()>& act) {
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);
    _exit(act());
  }
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 200 + WTERMSIG(status);
}

}  // namespace refit
