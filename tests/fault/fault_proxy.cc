#include "tests/fault/fault_proxy.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>

namespace refit {
namespace {

constexpr size_t kPieceBytes = 64 << 10;
constexpr int kPollMs = 20;

sockaddr_in Loopback(int port) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<uint16_t>(port));
  return address;
}

}  // namespace

FaultProxy::FaultProxy(int target_port) : target_port_(target_port) {
  listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  wake_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  sockaddr_in address = Loopback(0);
  socklen_t size = sizeof(address);
  if (bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0 || listen(listener_, 512) != 0 ||
      getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    std::abort();  // a test that cannot even begin
  }
  port_ = ntohs(address.sin_port);
  thread_ = std::thread([this] { Run(); });
}

FaultProxy::~FaultProxy() {
  stopping_ = true;
  const uint64_t one = 1;
  (void)!write(wake_, &one, sizeof(one));
  thread_.join();
  for (Connection& connection : connections_) Close(connection);
  close(listener_);
  close(wake_);
}

void FaultProxy::AnswerNewConnectionsAfter(std::chrono::milliseconds delay) {
  const std::lock_guard lock(mutex_);
  first_delay_ = delay;
}

void FaultProxy::Inject(Fault fault) {
  const std::lock_guard lock(mutex_);
  fault_ = fault;
}

// Connections that stall are reset: the network is back, what was in it is lost.
void FaultProxy::Heal() {
  const std::lock_guard lock(mutex_);
  fault_.reset();
  for (Connection& connection : connections_) {
    if (!connection.to_client.stalled && !connection.to_server.stalled) continue;
    connection.dead = connection.reset = true;
  }
}

void FaultProxy::Close(Connection& connection) {
  for (const int fd : {connection.client, connection.server}) {
    if (fd < 0) continue;
    if (connection.reset) {
      const linger now = {1, 0};
      setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    }
    close(fd);
  }
  connection.client = connection.server = -1;
}

void FaultProxy::Accept() {
  while (true) {
    const int client = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (client < 0) return;
    const int server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const sockaddr_in address = Loopback(target_port_);
    Connection connection;
    connection.client = client;
    connection.server = server;
    // Loopback answers at once, one way or the other.
    if (connect(server, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
      connection.reset = true;
      Close(connection);
      continue;
    }
    connection.to_client.not_before = std::chrono::steady_clock::now() + first_delay_;
    connections_.push_back(std::move(connection));
  }
}

void FaultProxy::Strike(Connection& connection, Way& way, bool towards_client) {
  if (!fault_.has_value() || fault_->towards_client != towards_client) return;
  if (fault_->after_bytes >= way.held.size()) {
    fault_->after_bytes -= way.held.size();
    return;
  }
  const size_t at = fault_->after_bytes;
  switch (fault_->kind) {
    case Fault::Kind::kCut:
      connection.dead = connection.reset = true;
      break;
    case Fault::Kind::kTruncate:
      way.held.resize(at);
      way.ended = true;
      break;
    case Fault::Kind::kFlip:
      way.held[at] ^= 1;
      break;
    case Fault::Kind::kReorder:
      std::rotate(way.held.begin() + static_cast<ptrdiff_t>(at),
                  way.held.begin() + static_cast<ptrdiff_t>(at + (way.held.size() - at) / 2), way.held.end());
      break;
    case Fault::Kind::kDelay:
      way.not_before = std::chrono::steady_clock::now() + fault_->delay;
      break;
    case Fault::Kind::kStall:
      way.stalled = true;
      break;
  }
  ++struck_;
  fault_.reset();
}

void FaultProxy::Move(Connection& connection, bool towards_client, short from_events, short to_events) {
  Way& way = towards_client ? connection.to_client : connection.to_server;
  const int from = towards_client ? connection.server : connection.client;
  const int to = towards_client ? connection.client : connection.server;
  if (way.held.empty() && !way.ended && (from_events & (POLLIN | POLLHUP | POLLERR)) != 0) {
    way.held.resize(kPieceBytes);
    const ssize_t got = recv(from, way.held.data(), way.held.size(), MSG_DONTWAIT);
    way.held.resize(got > 0 ? static_cast<size_t>(got) : 0);
    if (got == 0) way.ended = true;
    if (got < 0 && errno != EAGAIN) connection.dead = connection.reset = true;
    if (got > 0) Strike(connection, way, towards_client);
  }
  if (connection.dead || way.stalled || std::chrono::steady_clock::now() < way.not_before) return;
  if (!way.held.empty() && (to_events & POLLOUT) != 0) {
    const ssize_t sent =
        send(to, way.held.data() + way.written, way.held.size() - way.written, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && errno != EAGAIN) connection.dead = connection.reset = true;
    if (sent > 0) {
      way.written += static_cast<size_t>(sent);
      if (towards_client) bytes_to_client_ += static_cast<uint64_t>(sent);
    }
    if (way.written == way.held.size()) {
      way.held.clear();
      way.written = 0;
    }
  }
  if (way.held.empty() && way.ended && !way.end_passed_on) {
    way.end_passed_on = true;
    shutdown(to, SHUT_WR);
  }
}

void FaultProxy::Run() {
  while (!stopping_) {
    std::vector<pollfd> polled = {{listener_, POLLIN, 0}, {wake_, POLLIN, 0}};
    {
      const std::lock_guard lock(mutex_);
      const auto events = [](const Way& in, const Way& out) {
        const bool out_waits = out.stalled || std::chrono::steady_clock::now() < out.not_before;
        return static_cast<short>((in.held.empty() && !in.ended ? POLLIN : 0) |
                                  (!out.held.empty() && !out_waits ? POLLOUT : 0));
      };
      for (const Connection& connection : connections_) {
        polled.push_back({connection.client, events(connection.to_server, connection.to_client), 0});
        polled.push_back({connection.server, events(connection.to_client, connection.to_server), 0});
      }
    }
    poll(polled.data(), polled.size(), kPollMs);
    const std::lock_guard lock(mutex_);
    size_t next = 2;
    for (Connection& connection : connections_) {
      const short client = polled[next++].revents;
      const short server = polled[next++].revents;
      Move(connection, /*towards_client=*/false, client, server);
      if (!connection.dead) Move(connection, /*towards_client=*/true, server, client);
      if (connection.to_client.end_passed_on && connection.to_server.end_passed_on) connection.dead = true;
    }
    for (Connection& connection : connections_) {
      if (connection.dead) Close(connection);
    }
    connections_.remove_if([](const Connection& connection) { return connection.dead; });
    if (polled[0].revents != 0) Accept();
  }
}

}  // namespace refit
