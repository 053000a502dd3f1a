// A TCP proxy that breaks connections in the ways that networks do, and in some that they should not.
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
    kTruncate,  // what is on its way is lost, then both ends see an orderly end
    kFlip,      // one bit is another
    kReorder,   // two halves of what is on its way change places
    kDelay,     // nothing moves for `delay`
    kStall,     // nothing moves any more, and nobody is told
  };
  Kind kind = Kind::kCut;
  // Of the bytes that go this way from now on, all connections together, how many pass before it strikes, once.
  uint64_t after_bytes = 0;
  bool towards_client = true;
  std::chrono::milliseconds delay{0};
};

// One thread moves the bytes. Thread-safe.
class FaultProxy {
 public:
  // Forwards what comes in on a port of its own to 127.0.0.1:`target_port`, which may change later.
  explicit FaultProxy(int target_port);
  ~FaultProxy();
  FaultProxy(const FaultProxy&) = delete;
  FaultProxy& operator=(const FaultProxy&) = delete;

  int port() const { return port_; }
  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }
  void SetTarget(int port) { target_port_ = port; }

  // Replaces a fault that has not struck.
  void Inject(Fault fault);
  void Heal();
  // Faults that struck so far.
  uint64_t struck() const { return struck_; }
  uint64_t bytes_to_client() const { return bytes_to_client_; }

 private:
  // Bytes that go one way of one connection.
  struct Way {
    std::vector<char> held;  // read and not yet written
    size_t written = 0;      // of those
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
  std::list<Connection> connections_;
  std::thread thread_;
};

}  // namespace refit
