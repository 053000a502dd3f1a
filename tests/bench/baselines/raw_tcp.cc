// The ceiling: bytes through a plain blocking TCP socket over loopback, nothing checked, nothing framed.
//
//   bench-raw-tcp --bytes N --serve    prints "ready <port>"; sends N bytes whenever its client asks
//   bench-raw-tcp --bytes N --port P   prints "ready"; for each line of stdin receives N bytes and prints the seconds
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <iostream>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "tests/bench/baselines/warm_region.h"

namespace refit::baselines {
namespace {

constexpr size_t kCallBytes = 1 << 20;

class Socket {
 public:
  explicit Socket(int descriptor) : descriptor_(descriptor) {}
  ~Socket() {
    if (descriptor_ >= 0) close(descriptor_);
  }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;

  int get() const { return descriptor_; }

 private:
  const int descriptor_;
};

absl::Status Errno(const char* what) { return absl::ErrnoToStatus(errno, what); }

// OK and false: the peer has closed.
absl::StatusOr<bool> ReceiveAll(const Socket& socket, void* data, size_t size) {
  for (size_t done = 0; done < size;) {
    const ssize_t got = recv(socket.get(), static_cast<char*>(data) + done, size - done, MSG_WAITALL);
    if (got == 0) return false;
    if (got < 0) return Errno("recv");
    done += static_cast<size_t>(got);
  }
  return true;
}

absl::Status SendAll(const Socket& socket, const void* data, size_t size) {
  for (size_t done = 0; done < size;) {
    const ssize_t sent = send(socket.get(), static_cast<const char*>(data) + done, size - done, MSG_NOSIGNAL);
    if (sent < 0) return Errno("send");
    done += static_cast<size_t>(sent);
  }
  return absl::OkStatus();
}

absl::Status ServeClient(const Socket& socket, absl::Span<const std::byte> region) {
  while (true) {
    char request = 0;
    const absl::StatusOr<bool> asked = ReceiveAll(socket, &request, 1);
    if (!asked.ok() || !*asked) return asked.status();
    for (size_t offset = 0; offset < region.size(); offset += kCallBytes) {
      const absl::Span<const std::byte> run = region.subspan(offset, kCallBytes);
      if (absl::Status status = SendAll(socket, run.data(), run.size()); !status.ok()) return status;
    }
  }
}

absl::Status Serve(absl::Span<const std::byte> region) {
  const Socket listener(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
  socklen_t size = sizeof address;
  if (bind(listener.get(), reinterpret_cast<sockaddr*>(&address), size) != 0) return Errno("bind");
  if (listen(listener.get(), 1) != 0) return Errno("listen");
  if (getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &size) != 0) return Errno("getsockname");
  std::cout << "ready " << ntohs(address.sin_port) << std::endl;
  const Socket client(accept(listener.get(), nullptr, nullptr));
  if (client.get() < 0) return Errno("accept");
  return ServeClient(client, region);
}

absl::Status Receive(const Socket& socket, absl::Span<std::byte> region) {
  if (absl::Status status = SendAll(socket, "", 1); !status.ok()) return status;
  for (size_t offset = 0; offset < region.size(); offset += kCallBytes) {
    const absl::Span<std::byte> run = region.subspan(offset, kCallBytes);
    const absl::StatusOr<bool> got = ReceiveAll(socket, run.data(), run.size());
    if (!got.ok()) return got.status();
    if (!*got) return absl::UnavailableError("the sender has closed");
  }
  return absl::OkStatus();
}

absl::Status ReceiveOften(uint16_t port, absl::Span<std::byte> region) {
  const Socket socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
  if (connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) return Errno("connect");
  std::cout << "ready" << std::endl;
  for (std::string line; std::getline(std::cin, line);) {
    const auto begin = std::chrono::steady_clock::now();
    if (absl::Status status = Receive(socket, region); !status.ok()) return status;
    std::cout << std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() << std::endl;
  }
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  CLI::App app("Bytes through a plain TCP socket, for benchmarks");
  bool serve = false;
  uint16_t port = 0;
  uint64_t bytes = 0;
  app.add_flag("--serve", serve);
  app.add_option("--port", port);
  app.add_option("--bytes", bytes)->required();
  CLI11_PARSE(app, argc, argv);
  const absl::StatusOr<std::shared_ptr<Buffer>> region = MakeWarmRegion(bytes);
  absl::Status status = region.status();
  if (status.ok()) status = serve ? Serve((*region)->span()) : ReceiveOften(port, (*region)->span());
  if (!status.ok()) std::cerr << "bench-raw-tcp: " << status.ToString() << "\n";
  return status.ok() ? 0 : 1;
}

}  // namespace
}  // namespace refit::baselines

int main(int argc, char** argv) { return refit::baselines::Main(argc, argv); }
