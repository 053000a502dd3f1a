#include "server/process/self_check.h"

#include <netdb.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <thread>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/certificates/openssl_pointers.h"
#include "common/net/address.h"
#include "common/safetensors/posix_file.h"

namespace refit {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

// The connection preface of HTTP/2, and an empty SETTINGS frame.
constexpr absl::string_view kHttp2Greeting("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", 33);

// The first message of a TLS client.
absl::StatusOr<std::string> TlsGreeting() {
  const absl::Cleanup forget_errors = [] { ERR_clear_error(); };
  const OpensslPointer<SSL_CTX, SSL_CTX_free> context(SSL_CTX_new(TLS_client_method()));
  const OpensslPointer<SSL, SSL_free> client(context == nullptr ? nullptr : SSL_new(context.get()));
  Bio incoming(BIO_new(BIO_s_mem()));
  Bio outgoing(BIO_new(BIO_s_mem()));
  if (client == nullptr || incoming == nullptr || outgoing == nullptr) {
    return absl::ResourceExhaustedError("OpenSSL has no memory for a TLS client");
  }
  BIO* const said = outgoing.get();
  SSL_set_bio(client.get(), incoming.release(), outgoing.release());
  (void)SSL_connect(client.get());  // makes the client's first message; the answer is not awaited here
  char* bytes = nullptr;
  const auto size = BIO_get_mem_data(said, &bytes);
  if (size <= 0) return absl::InternalError("OpenSSL begins no TLS connection");
  return std::string(bytes, static_cast<size_t>(size));
}

absl::StatusOr<std::string> Greeting(bool tls) {
  if (tls) return TlsGreeting();
  return std::string(kHttp2Greeting);
}

struct Address {
  sockaddr_storage storage = {};
  socklen_t size = 0;
};

absl::StatusOr<std::vector<Address>> ResolveUnix(absl::string_view path) {
  Address address;
  auto& name = reinterpret_cast<sockaddr_un&>(address.storage);
  if (path.size() >= sizeof(name.sun_path)) {
    return absl::InvalidArgumentError(absl::StrCat("the socket path has ", path.size(), " bytes"));
  }
  name.sun_family = AF_UNIX;
  std::memcpy(name.sun_path, path.data(), path.size());
  address.size = sizeof(name);
  return std::vector<Address>{address};
}

absl::StatusOr<std::vector<Address>> Resolve(absl::string_view address) {
  if (const absl::string_view path = UnixPath(address); !path.empty()) return ResolveUnix(path);
  for (const absl::string_view scheme : {"ipv4:", "ipv6:", "dns:///"}) {
    if (absl::StartsWith(address, scheme)) address.remove_prefix(scheme.size());
  }
  const size_t colon = address.rfind(':');
  std::string host(address.substr(0, std::min(colon, address.size())));
  const std::string port(colon == absl::string_view::npos ? "" : address.substr(colon + 1));
  if (host.size() > 1 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);

  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (const int error = getaddrinfo(host.c_str(), port.c_str(), &hints, &found); error != 0) {
    return absl::InvalidArgumentError(gai_strerror(error));
  }
  const absl::Cleanup free = [&] { freeaddrinfo(found); };
  std::vector<Address> addresses;
  for (const addrinfo* next = found; next != nullptr; next = next->ai_next) {
    Address one;
    std::memcpy(&one.storage, next->ai_addr, next->ai_addrlen);
    one.size = next->ai_addrlen;
    addresses.push_back(one);
  }
  return addresses;
}

}  // namespace

class SelfCheck::Loop {
 public:
  Loop(const SelfCheckOptions& options, std::vector<Address> addresses, std::string greeting,
       std::function<void(const absl::Status&)> on_failure)
      : options_(options),
        addresses_(std::move(addresses)),
        greeting_(std::move(greeting)),
        on_failure_(std::move(on_failure)),
        stop_(eventfd(0, EFD_CLOEXEC)),
        thread_([this] { Run(); }) {}

  ~Loop() {
    (void)eventfd_write(stop_.get(), 1);
    thread_.join();
  }

 private:
  enum class Event { kReady, kTimeout, kStopped };

  void Run() {
    const milliseconds interval = std::max(options_.patience / 8, milliseconds(10));
    Clock::time_point answered = Clock::now();
    int failures = 0;
    while (true) {
      const Clock::time_point begin = Clock::now();
      const absl::Status status = Probe(begin + options_.patience / 2);
      const Clock::time_point end = Clock::now();
      if (status.ok()) {
        answered = end;
        failures = 0;
      } else if (++failures > 1 && end - answered >= options_.patience) {
        // One failed attempt is not enough: this process may have been stopped for a while.
        on_failure_(absl::Status(
            status.code(),
            absl::StrCat(options_.address, " has accepted no connection for ",
                         std::chrono::duration_cast<milliseconds>(end - answered).count(), " ms: ", status.message())));
        return;
      }
      if (Wait(-1, 0, begin + interval) == Event::kStopped) return;
    }
  }

  // Tries all addresses of the name. The server may listen on only some of them: at least one must answer, and none may
  // stay silent. OK also if the check is told to stop.
  absl::Status Probe(Clock::time_point deadline) const {
    absl::Status last = absl::OkStatus();
    bool one_answers = false;
    for (const Address& address : addresses_) {
      absl::Status status = ProbeOne(address, deadline);
      if (status.ok()) {
        one_answers = true;
      } else if (absl::IsNotFound(status)) {
        last = std::move(status);
      } else {
        return status;
      }
    }
    return one_answers ? absl::OkStatus() : last;
  }

  // NOT_FOUND if no server listens there.
  absl::Status ProbeOne(const Address& address, Clock::time_point deadline) const {
    const FileDescriptor peer(socket(address.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!peer.valid()) return absl::ResourceExhaustedError(absl::StrCat("no socket: ", std::strerror(errno)));
    if (connect(peer.get(), reinterpret_cast<const sockaddr*>(&address.storage), address.size) != 0) {
      if (errno != EINPROGRESS) return ConnectError(errno);
      if (const Event event = Wait(peer.get(), POLLOUT, deadline); event != Event::kReady) {
        return TimedOut(event, "the connection was not completed");
      }
      int error = 0;
      socklen_t size = sizeof(error);
      getsockopt(peer.get(), SOL_SOCKET, SO_ERROR, &error, &size);
      if (error != 0) return ConnectError(error);
    }
    // A peer that has closed the connection has accepted it too. Reading shows that, so an error here is ignored.
    (void)send(peer.get(), greeting_.data(), greeting_.size(), MSG_NOSIGNAL);
    return TimedOut(Wait(peer.get(), POLLIN, deadline), "the kernel connected, but nobody has answered");
  }

  static absl::Status ConnectError(int error) {
    const std::string message = absl::StrCat("cannot connect: ", std::strerror(error));
    return error == ECONNREFUSED ? absl::NotFoundError(message) : absl::UnavailableError(message);
  }

  static absl::Status TimedOut(Event event, absl::string_view what) {
    return event == Event::kTimeout ? absl::DeadlineExceededError(what) : absl::OkStatus();
  }

  // Waits until something happens to `fd` (-1: nothing can), the deadline has passed, or the check must stop.
  Event Wait(int fd, short events, Clock::time_point deadline) const {
    pollfd waits[] = {{stop_.get(), POLLIN, 0}, {fd, events, 0}};
    while (true) {
      const auto left = std::chrono::ceil<milliseconds>(deadline - Clock::now()).count();
      const int ready = poll(waits, 2, static_cast<int>(std::max<int64_t>(left, 0)));
      if (ready > 0) return waits[0].revents != 0 ? Event::kStopped : Event::kReady;
      if (ready == 0) return Event::kTimeout;
      if (errno != EINTR) return Event::kTimeout;
    }
  }

  const SelfCheckOptions options_;
  const std::vector<Address> addresses_;
  const std::string greeting_;
  const std::function<void(const absl::Status&)> on_failure_;
  const FileDescriptor stop_;
  std::thread thread_;  // last member: it uses all the others
};

absl::StatusOr<std::unique_ptr<SelfCheck>> SelfCheck::Start(const SelfCheckOptions& options,
                                                            std::function<void(const absl::Status&)> on_failure) {
  absl::StatusOr<std::vector<Address>> addresses = Resolve(options.address);
  if (!addresses.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("cannot check '", options.address, "' from outside: ", addresses.status().message()));
  }
  absl::StatusOr<std::string> greeting = Greeting(options.tls);
  if (!greeting.ok()) return greeting.status();
  return std::unique_ptr<SelfCheck>(new SelfCheck(
      std::make_unique<Loop>(options, *std::move(addresses), *std::move(greeting), std::move(on_failure))));
}

SelfCheck::SelfCheck(std::unique_ptr<Loop> loop) : loop_(std::move(loop)) {}

SelfCheck::~SelfCheck() = default;

}  // namespace refit
