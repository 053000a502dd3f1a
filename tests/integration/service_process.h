// refit-server as a process of its own.
#pragma once

#include <signal.h>

#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "common/net/channel.h"
#include "tests/integration/subprocess.h"

namespace refit {

class ServiceProcess {
 public:
  // Waits until it listens, or has ended (then address() is empty).
  explicit ServiceProcess(std::vector<std::string> arguments) {
    const std::string port_file = folder_.Path("port");
    arguments.insert(arguments.end(), {"--listen", "127.0.0.1:0", "--port-file", port_file});
    process_ = Subprocess::Start("refit-server", arguments);
    std::string port;
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while ((port.empty() || port.back() != '\n') && process_->IsRunning()) {
      if (std::chrono::steady_clock::now() > deadline) return;
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
      port = ReadFile(port_file);
    }
    if (!port.empty()) address_ = "127.0.0.1:" + port.substr(0, port.size() - 1);
  }

  const std::string& address() const { return address_; }
  ChannelOptions Channel(Transport transport = Transport::kAuto) const {
    ChannelOptions options;
    options.address = address_;
    options.transport = transport;
    return options;
  }
  std::string Err() const { return process_->Err(); }
  Outcome Kill() {
    process_->Signal(SIGKILL);
    return process_->Wait();
  }
  Outcome Terminate() {
    process_->Signal(SIGTERM);
    return process_->Wait();
  }
  Outcome Wait() { return process_->Wait(); }

 private:
  TemporaryFolder folder_;
  std::unique_ptr<Subprocess> process_;
  std::string address_;
};

}  // namespace refit
