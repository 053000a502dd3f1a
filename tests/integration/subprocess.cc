#include "tests/integration/subprocess.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <sstream>
#include <stdexcept>

#include "test_paths.h"

namespace refit {

std::unique_ptr<Subprocess> Subprocess::Start(const std::string& program, const std::vector<std::string>& arguments,
                                              const Surroundings& surroundings) {
  std::unique_ptr<Subprocess> process(new Subprocess);
  const std::string path = std::string(REFIT_BIN_DIR) + "/" + program;
  std::vector<char*> argv;
  for (const std::string& word : surroundings.by) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(const_cast<char*>(path.c_str()));
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);

  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, 1, process->folder_.Path("out").c_str(), O_WRONLY | O_CREAT, 0600);
  const std::string err = surroundings.stderr_path.empty() ? process->folder_.Path("err") : surroundings.stderr_path;
  posix_spawn_file_actions_addopen(&actions, 2, err.c_str(), O_WRONLY | O_CREAT, 0600);
  if (surroundings.out >= 0) posix_spawn_file_actions_adddup2(&actions, surroundings.out, 1);
  if (surroundings.err >= 0) posix_spawn_file_actions_adddup2(&actions, surroundings.err, 2);
  const int error = posix_spawnp(&process->pid_, argv[0], &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) throw std::runtime_error("cannot start " + path);
  process->pidfd_ = static_cast<int>(syscall(SYS_pidfd_open, process->pid_, 0));
  return process;
}

Subprocess::~Subprocess() {
  if (pid_ > 0) {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  if (pidfd_ >= 0) close(pidfd_);
}

void Subprocess::Signal(int signal) const { kill(pid_, signal); }

bool Subprocess::Ended(std::chrono::milliseconds patience) const {
  pollfd end = {pidfd_, POLLIN, 0};
  return poll(&end, 1, static_cast<int>(patience.count())) > 0;
}

bool Subprocess::IsRunning() const { return !Ended(std::chrono::milliseconds(0)); }

Outcome Subprocess::Wait(std::chrono::seconds patience) {
  if (!Ended(patience)) kill(pid_, SIGKILL);
  int status = 0;
  waitpid(pid_, &status, 0);
  pid_ = -1;
  return {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), ReadFile(folder_.Path("out")), Err()};
}

std::string Subprocess::Err() const { return ReadFile(folder_.Path("err")); }

Outcome Refit(const std::vector<std::string>& arguments) { return Subprocess::Start("refit", arguments)->Wait(); }

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

}  // namespace refit
