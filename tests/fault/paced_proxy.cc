#include "tests/fault/paced_proxy.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <deque>
#include <optional>
#include <utility>
#include <vector>

namespace refit {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kPieceBytes = 256 << 10;
// How far the sender may be ahead of the link. More than a thread sleeps too long.
constexpr std::chrono::milliseconds kAhead{10};
constexpr std::chrono::milliseconds kLongestSleep{50};

sockaddr_in Loopback(int port) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<uint16_t>(port));
  return address;
}

void SendAtOnce(int fd) {
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

// One direction of a connection.
class Way {
 public:
  Way(int from, int to, Link link) : from_(from), to_(to), link_(link) {}

  bool wants_to_read(Clock::time_point now) const { return !ended_ && free_at_ - now < kAhead; }
  bool wants_to_write(Clock::time_point now) const { return !pieces_.empty() && pieces_.front().due <= now; }
  // When one of these changes by itself.
  Clock::time_point NextChange(Clock::time_point now) const {
    Clock::time_point next = now + kLongestSleep;
    if (!ended_ && !wants_to_read(now)) next = std::min(next, free_at_ - kAhead / 2);
    if (!pieces_.empty() && !wants_to_write(now)) next = std::min(next, pieces_.front().due);
    return next;
  }

  // False once the connection is broken.
  bool Read(Clock::time_point now) {
    std::vector<char> bytes;
    if (!spare_.empty()) {
      bytes = std::move(spare_.back());
      spare_.pop_back();
    }
    bytes.resize(kPieceBytes);
    const ssize_t got = recv(from_, bytes.data(), bytes.size(), MSG_DONTWAIT);
    if (got < 0) return errno == EAGAIN;
    if (got == 0) {
      ended_ = true;
      return true;
    }
    const std::chrono::duration<double> takes(static_cast<double>(got) / link_.rate);
    free_at_ = std::max(now, free_at_) + std::chrono::duration_cast<Clock::duration>(takes);
    pieces_.push_back({free_at_ + link_.delay, std::move(bytes), static_cast<size_t>(got), 0});
    return true;
  }

  // The bytes that were written; nothing once the connection is broken.
  std::optional<uint64_t> Write() {
    Piece& piece = pieces_.front();
    const ssize_t sent =
        send(to_, piece.bytes.data() + piece.begin, piece.end - piece.begin, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0) return errno == EAGAIN ? std::optional<uint64_t>(0) : std::nullopt;
    piece.begin += static_cast<size_t>(sent);
    if (piece.begin == piece.end) {
      spare_.push_back(std::move(piece.bytes));
      pieces_.pop_front();
    }
    return static_cast<uint64_t>(sent);
  }

  // Passes an end on. Returns whether this direction is over.
  bool End() {
    if (!ended_ || !pieces_.empty()) return false;
    if (!std::exchange(passed_on_, true)) shutdown(to_, SHUT_WR);
    return true;
  }

  int from() const { return from_; }
  int to() const { return to_; }

 private:
  struct Piece {
    Clock::time_point due;
    std::vector<char> bytes;
    size_t end = 0;
    size_t begin = 0;
  };

  const int from_;
  const int to_;
  const Link link_;
  std::deque<Piece> pieces_;
  std::vector<std::vector<char>> spare_;
  Clock::time_point free_at_{};  // when the link has taken what was read
  bool ended_ = false;
  bool passed_on_ = false;
};

}  // namespace

PacedProxy::PacedProxy(int target_port, Link link, int port) : target_port_(target_port), link_(link) {
  listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int on = 1;
  setsockopt(listener_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  sockaddr_in address = Loopback(port);
  socklen_t size = sizeof(address);
  if (bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0 || listen(listener_, 512) != 0 ||
      getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    std::abort();  // a test that cannot even begin
  }
  port_ = ntohs(address.sin_port);
  accepting_ = std::thread([this] { Accept(); });
}

PacedProxy::~PacedProxy() {
  stopping_ = true;
  accepting_.join();
  for (std::thread& thread : threads_) thread.join();
  close(listener_);
}

void PacedProxy::SetLink(Link link) {
  const std::lock_guard lock(mutex_);
  link_ = link;
}

void PacedProxy::Accept() {
  while (!stopping_) {
    pollfd polled = {listener_, POLLIN, 0};
    if (poll(&polled, 1, static_cast<int>(kLongestSleep.count())) != 1) continue;
    const int client = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (client < 0) continue;
    const int server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const sockaddr_in address = Loopback(target_port_);
    if (connect(server, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
      close(client);
      close(server);
      continue;
    }
    SendAtOnce(client);
    SendAtOnce(server);
    ++connections_;
    const std::lock_guard lock(mutex_);
    threads_.emplace_back([this, client, server, link = link_] { Serve(client, server, link); });
  }
}

void PacedProxy::Serve(int client, int server, Link link) {
  Way to_server(client, server, link);
  Way to_client(server, client, link);
  bool broken = false;
  while (!stopping_ && !broken) {
    Clock::time_point now = Clock::now();
    pollfd polled[2] = {{client, 0, 0}, {server, 0, 0}};
    const auto mark = [&](const Way& way, pollfd& from, pollfd& to) {
      if (way.wants_to_read(now)) from.events |= POLLIN;
      if (way.wants_to_write(now)) to.events |= POLLOUT;
    };
    mark(to_server, polled[0], polled[1]);
    mark(to_client, polled[1], polled[0]);
    const auto sleep =
        std::max(Clock::duration::zero(), std::min(to_server.NextChange(now), to_client.NextChange(now)) - now);
    const auto nanoseconds = std::chrono::duration_cast<std::chrono::nanoseconds>(sleep).count();
    const timespec timeout = {nanoseconds / 1'000'000'000, nanoseconds % 1'000'000'000};
    if (ppoll(polled, 2, &timeout, nullptr) < 0) break;
    now = Clock::now();
    const auto move = [&](Way& way, const pollfd& from, const pollfd& to, bool counts) {
      if (way.wants_to_read(now) && (from.revents & (POLLIN | POLLHUP | POLLERR)) != 0) broken |= !way.Read(now);
      while (!broken && way.wants_to_write(now) && (to.revents & POLLOUT) != 0) {
        const std::optional<uint64_t> sent = way.Write();
        if (!sent.has_value()) broken = true;
        if (counts && sent.has_value()) bytes_to_client_ += *sent;
        if (!sent.has_value() || *sent == 0) break;
      }
    };
    move(to_server, polled[0], polled[1], false);
    move(to_client, polled[1], polled[0], true);
    const bool one_over = to_server.End();
    if (to_client.End() && one_over) break;
  }
  close(client);
  close(server);
}

}  // namespace refit
