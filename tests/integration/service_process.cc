#include "tests/integration/service_process.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>

namespace refit {
namespace {

constexpr int kStartMs = 60'000;
constexpr int kLookMs = 20;

std::string ProcPath(pid_t pid, const char* entry) { return "/proc/" + std::to_string(pid) + "/" + entry; }

// A pipe with a name, so that reading the port waits for it to be written.
class PortPipe {
 public:
  explicit PortPipe(const std::string& path) {
    if (mkfifo(path.c_str(), 0600) == 0) fd_ = open(path.c_str(), O_RDWR | O_CLOEXEC);
    if (fd_ < 0) throw std::runtime_error("no pipe at " + path);
  }
  ~PortPipe() { close(fd_); }
  PortPipe(const PortPipe&) = delete;
  PortPipe& operator=(const PortPipe&) = delete;

  // 0 if nothing came in time, or its writer has ended.
  int Read(const Subprocess& writer) const {
    pollfd readable = {fd_, POLLIN, 0};
    for (int waited = 0; waited < kStartMs && writer.IsRunning(); waited += kLookMs) {
      if (poll(&readable, 1, kLookMs) > 0) break;
    }
    char text[16] = {};
    if (poll(&readable, 1, 0) <= 0 || read(fd_, text, sizeof(text) - 1) <= 0) return 0;
    return std::atoi(text);
  }

 private:
  int fd_ = -1;
};

}  // namespace

ServiceProcess::ServiceProcess(const std::vector<std::string>& flags, int port,
                               const Subprocess::Surroundings& surroundings) {
  const std::string path = folder_.Path("port");
  const PortPipe pipe(path);
  std::vector<std::string> arguments = {"--listen", "127.0.0.1:" + std::to_string(port), "--port-file", path};
  arguments.insert(arguments.end(), flags.begin(), flags.end());
  process_ = Subprocess::Start("refit-server", arguments, surroundings);
  port_ = pipe.Read(*process_);
}

ChannelOptions ServiceProcess::Channel(Transport transport) const {
  ChannelOptions options;
  options.address = address();
  options.transport = transport;
  return options;
}

Outcome ServiceProcess::Kill() {
  process_->Signal(SIGKILL);
  return process_->Wait();
}

Outcome ServiceProcess::Terminate() {
  process_->Signal(SIGTERM);
  return process_->Wait();
}

uint64_t ServiceProcess::ResidentBytes() const { return refit::ResidentBytes(process_->pid()); }

uint64_t ServiceProcess::OpenDescriptors() const { return refit::OpenDescriptors(process_->pid()); }

void ServiceProcess::LeaveDescriptors(uint64_t more) {
  const rlimit limit = {OpenDescriptors() + more, OpenDescriptors() + more};
  if (prlimit(process_->pid(), RLIMIT_NOFILE, &limit, nullptr) != 0) throw std::runtime_error("no prlimit");
}

uint64_t ResidentBytes(pid_t pid) {
  std::ifstream file(ProcPath(pid, "statm"));
  uint64_t pages = 0;
  uint64_t resident = 0;
  file >> pages >> resident;
  return resident * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

uint64_t OpenDescriptors(pid_t pid) {
  std::error_code error;
  const std::filesystem::directory_iterator entries(ProcPath(pid, "fd"), error);
  return error ? 0 : static_cast<uint64_t>(std::distance(begin(entries), end(entries)));
}

}  // namespace refit
