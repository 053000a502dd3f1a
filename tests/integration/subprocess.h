// Our programs as a user runs them.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "tests/support/temporary_folder.h"

namespace refit {

struct Outcome {
  int code = -1;  // exit code; 128 + signal if one ended it
  std::string out;
  std::string err;
};

// A running program of ours; killed if still running at the end.
class Subprocess {
 public:
  struct Surroundings {
    // What starts it: {"prlimit", "--nofile=256"}, {"env", "NAME=value"}; the program and its arguments follow.
    std::vector<std::string> by = {};
    // Where its stderr goes, such as a named pipe; empty: into a file, see Err.
    std::string stderr_path = {};
    // Where it writes instead, such as a pipe that a test reads or does not; -1: what Wait and Err give.
    int out = -1;
    int err = -1;
  };

  // `program` lies in REFIT_BIN_DIR.
  static std::unique_ptr<Subprocess> Start(const std::string& program, const std::vector<std::string>& arguments,
                                           const Surroundings& surroundings);
  static std::unique_ptr<Subprocess> Start(const std::string& program, const std::vector<std::string>& arguments) {
    return Start(program, arguments, {});
  }
  ~Subprocess();

  pid_t pid() const { return pid_; }
  void Signal(int signal) const;
  bool IsRunning() const;
  // Kills it and gives code 137 after `patience`.
  Outcome Wait(std::chrono::seconds patience = std::chrono::seconds(120));
  // What it has printed so far.
  std::string Err() const;

 private:
  Subprocess() = default;
  bool Ended(std::chrono::milliseconds patience) const;

  TemporaryFolder folder_;
  pid_t pid_ = -1;
  int pidfd_ = -1;
};

// Runs the `refit` command line to its end.
Outcome Refit(const std::vector<std::string>& arguments);

std::string ReadFile(const std::string& path);

}  // namespace refit
