// A TCP proxy with long and narrow links: each connection has a rate and a delay of its own, as over a wide area.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <list>
#include <mutex>
#include <string>
#include <thread>

namespace refit {

struct Link {
  // Bytes a second of each connection, in each direction.
  double rate = 1e12;
  // From one end to the other.
  std::chrono::nanoseconds delay{0};
};

// A thread for each connection. Thread-safe.
class PacedProxy {
 public:
  // Listens on a port of its own (or on `port`), and forwards connections to 127.0.0.1:`target_port`.
  PacedProxy(int target_port, Link link, int port = 0);
  // Cuts all connections.
  ~PacedProxy();
  PacedProxy(const PacedProxy&) = delete;
  PacedProxy& operator=(const PacedProxy&) = delete;

  int port() const { return port_; }
  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }
  // For connections from now on.
  void SetLink(Link link);

  // Connections so far, and bytes towards clients.
  uint64_t connections() const { return connections_; }
  uint64_t bytes_to_client() const { return bytes_to_client_; }

 private:
  void Accept();
  void Serve(int client, int server, Link link);

  const int target_port_;
  int listener_ = -1;
  int port_ = 0;
  std::atomic<bool> stopping_{false};
  std::atomic<uint64_t> connections_{0};
  std::atomic<uint64_t> bytes_to_client_{0};
  std::mutex mutex_;
  Link link_;                       // guarded by mutex_
  std::list<std::thread> threads_;  // of the accepting thread
  std::thread accepting_;
};

}  // namespace refit
