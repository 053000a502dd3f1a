// A refit-server in a process of its own, listening on loopback.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "common/net/channel.h"
#include "tests/integration/subprocess.h"

namespace refit {

class ServiceProcess {
 public:
  // Returns once it listens, on a free port unless one is given; or once it has ended (then address() is empty).
  explicit ServiceProcess(const std::vector<std::string>& flags = {}, int port = 0,
                          const Subprocess::Surroundings& surroundings = {});

  int port() const { return port_; }
  std::string address() const { return port_ == 0 ? "" : "127.0.0.1:" + std::to_string(port_); }
  ChannelOptions Channel(Transport transport = Transport::kAuto) const;
  Subprocess& process() { return *process_; }
  std::string Err() const { return process_->Err(); }
  Outcome Kill();
  Outcome Terminate();
  Outcome Wait() { return process_->Wait(); }

  // Of the process, from /proc.
  uint64_t ResidentBytes() const;
  uint64_t OpenDescriptors() const;
  // Allows it so many more descriptors than it has open.
  void LeaveDescriptors(uint64_t more);

 private:
  TemporaryFolder folder_;
  std::unique_ptr<Subprocess> process_;
  int port_ = 0;
};

// Likewise, of any process.
uint64_t ResidentBytes(pid_t pid);
uint64_t OpenDescriptors(pid_t pid);

}  // namespace refit
