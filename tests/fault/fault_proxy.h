// A TCP proxy that breaks connections, as networks do, and also in ways that they should not.
#pragma once

#include <sys/socket.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace refit {

struct Fault {
  enum class Kind {
    kCut,       // both ends get a reset
    kTruncate,  // bytes on the way are lost, then both ends see an orderly end
    kFlip,      // one bit is flipped
    kReorder,   // two halves of the bytes on the way are swapped
    kDelay,     // nothing is forwarded for `delay`
    kStall,     // nothing is forwarded any more, and neither end is told
  };
  Kind kind = Kind::kCut;
  // The fault strikes once, after this many bytes in this direction, counted over all connections from now on.
  uint64_t after_bytes = 0;
  bool towards_client = true;
  std::chrono::milliseconds delay{0};
};

// One thread moves the bytes. Thread-safe.
class FaultProxy {
 public:
  // Listens on a port of its own, and forwards connections to 127.0.0.1:`target_port`, which may change later.
  explicit FaultProxy(int target_port);
  ~FaultProxy();
  FaultProxy(const FaultProxy&) = delete;
  FaultProxy& operator=(const FaultProxy&) = delete;

  int port() const { return port_; }
  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }
  void SetTarget(int port) { target_port_ = port; }

  // From now on, nothing is forwarded to the client of a new connection before this long has passed.
  void AnswerNewConnectionsAfter(std::chrono::milliseconds delay);

  // Sets the next fault. It replaces a fault that has not struck yet.
  void Inject(Fault fault);
  void Heal();
  // How many faults have struck.
  uint64_t struck() const { return struck_; }
  uint64_t bytes_to_client() const { return bytes_to_client_; }

 private:
  // One direction of a connection.
  struct Way {
    std::vector<char> held;  // read but not yet written
    size_t written = 0;      // how many of them are written
    bool ended = false;      // nothing more will be read
    bool end_passed_on = false;
    std::chrono::steady_clock::time_point not_before{};
    bool stalled = false;
  };
  struct Connection {
    int client = -1;
    int server = -1;
    Way to_server;
    Way to_client;
    bool dead = false;
    bool reset = false;
  };

  void Run();
  void Accept();
  void Move(Connection& connection, bool towards_client, short from_events, short to_events);
  void Strike(Connection& connection, Way& way, bool towards_client);
  static void Close(Connection& connection);

  std::atomic<int> target_port_;
  int listener_ = -1;
  int wake_ = -1;
  int port_ = 0;
  std::atomic<bool> stopping_ = false;
  std::atomic<uint64_t> struck_ = 0;
  std::atomic<uint64_t> bytes_to_client_ = 0;
  std::mutex mutex_;
  std::optional<Fault> fault_;
  std::chrono::milliseconds first_delay_{0};
  std::list<Connection> connections_;
  std::thread thread_;
};

}  // namespace refit
