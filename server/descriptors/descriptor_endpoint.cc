#include "server/descriptors/descriptor_endpoint.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <deque>
#include <thread>
#include <utility>
#include <vector>

#include "absl/memory/memory.h"
#include "common/net/descriptor_client.h"
#include "common/net/descriptor_messages.h"
#include "common/net/unix_socket.h"

namespace refit {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

// Of a connection: much longer than a request or an authorised push takes to come.
constexpr std::chrono::seconds kLongest{10};
constexpr size_t kMostConnections = 256;
// After no connection could be accepted, because there are no descriptors.
constexpr milliseconds kPause{100};

}  // namespace

class DescriptorEndpoint::Loop {
 public:
  Loop(PacketListener listener, DescriptorTable& table)
      : listener_(std::move(listener)),
        table_(table),
        stop_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
        thread_([this] { Run(); }) {}

  ~Loop() {
    (void)eventfd_write(stop_.get(), 1);
    thread_.join();
    for (const Connection& connection : connections_) table_.Withdraw(connection.offered);
  }

 private:
  struct Connection {
    FileDescriptor socket;
    Clock::time_point end;
    std::string offered;  // the key; empty: it has asked for nothing yet
  };

  void Run() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, nullptr);  // the process's signals are for its own threads
    while (Wait()) {
      ServeConnections();
      Accept();
    }
  }

  // Waits until something happens. False when the service ends.
  bool Wait() {
    const Clock::time_point now = Clock::now();
    const bool accepts = now >= accept_from_;
    polled_.assign({{stop_.get(), POLLIN, 0}, {accepts ? listener_.fd() : -1, POLLIN, 0}});
    Clock::time_point next = accepts ? Clock::time_point::max() : accept_from_;
    for (const Connection& connection : connections_) {
      polled_.push_back({connection.socket.get(), POLLIN, 0});
      next = std::min(next, connection.end);
    }
    const bool forever = next == Clock::time_point::max();
    const auto left = std::chrono::ceil<milliseconds>(next - now).count();
    const int ready =
        poll(polled_.data(), polled_.size(),
             forever ? -1 : static_cast<int>(std::clamp<int64_t>(left, 0, milliseconds(kLongest).count())));
    if (ready < 0) {
      for (pollfd& one : polled_) one.revents = 0;
    }
    return polled_[0].revents == 0;
  }

  // Those that stay are moved to the front, in their order: the oldest first.
  void ServeConnections() {
    const Clock::time_point now = Clock::now();
    size_t kept = 0;
    for (size_t i = 0; i < connections_.size(); ++i) {
      Connection& connection = connections_[i];
      const bool has_said = polled_[i + 2].revents != 0;
      const bool stays = now < connection.end && (!has_said || (connection.offered.empty() && Serve(connection)));
      if (!stays) {
        table_.Withdraw(connection.offered);
      } else if (kept++ != i) {
        connections_[kept - 1] = std::move(connection);
      }
    }
    connections_.resize(kept);
  }

  // Whether the connection stays open, because a descriptor was offered.
  bool Serve(Connection& connection) {
    absl::StatusOr<DescriptorMessage> message = ReceiveDescriptorMessage(connection.socket);
    if (!message.ok()) return absl::IsUnavailable(message.status());
    const std::optional<DescriptorRequest> request = DecodeDescriptorRequest(message->bytes);
    if (!request.has_value()) return false;
    if (request->kind == DescriptorRequest::Kind::kTake) {
      Give(connection, request->key);
      return false;
    }
    if (!message->descriptor.valid() || !table_.Offer(request->key, std::move(message->descriptor))) {
      (void)Answer(connection, DescriptorAnswer::kFailed);
      return false;
    }
    connection.offered = request->key;
    return Answer(connection, DescriptorAnswer::kDone).ok();
  }

  void Give(const Connection& connection, const std::string& key) {
    const absl::StatusOr<FileDescriptor> file = table_.Take(key);
    if (file.ok()) {
      (void)Answer(connection, DescriptorAnswer::kDone, file->get());
    } else {
      const bool unknown = absl::IsNotFound(file.status());
      (void)Answer(connection, unknown ? DescriptorAnswer::kUnknownKey : DescriptorAnswer::kFailed);
    }
  }

  static absl::Status Answer(const Connection& connection, DescriptorAnswer answer, int fd = -1) {
    return SendDescriptorMessage(connection.socket, std::string(1, static_cast<char>(answer)), fd);
  }

  void Accept() {
    if (polled_[1].revents == 0) return;
    FileDescriptor socket(accept4(listener_.fd(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!socket.valid()) {
      const bool gone = errno == EAGAIN || errno == EINTR || errno == ECONNABORTED;
      if (!gone) accept_from_ = Clock::now() + kPause;
      return;
    }
    if (connections_.size() == kMostConnections) {
      table_.Withdraw(connections_.front().offered);
      connections_.pop_front();
    }
    connections_.push_back({std::move(socket), Clock::now() + kLongest, ""});
  }

  const PacketListener listener_;
  DescriptorTable& table_;
  const FileDescriptor stop_;
  std::deque<Connection> connections_;  // the oldest first
  std::vector<pollfd> polled_;
  Clock::time_point accept_from_;
  std::thread thread_;  // last member: it uses all the others
};

absl::StatusOr<std::unique_ptr<DescriptorEndpoint>> DescriptorEndpoint::Start(const std::string& unix_path,
                                                                              std::optional<mode_t> mode,
                                                                              DescriptorTable& table) {
  absl::StatusOr<PacketListener> listener = PacketListener::Open(DescriptorPath(unix_path), mode);
  if (!listener.ok()) return listener.status();
  return absl::WrapUnique(new DescriptorEndpoint(std::make_unique<Loop>(*std::move(listener), table)));
}

DescriptorEndpoint::DescriptorEndpoint(std::unique_ptr<Loop> loop) : loop_(std::move(loop)) {}

DescriptorEndpoint::~DescriptorEndpoint() = default;

}  // namespace refit
