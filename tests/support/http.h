// A minimal HTTP client for tests.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>

namespace refit {

// A connection to "127.0.0.1:port", closed at the end.
class TcpConnection {
 public:
  explicit TcpConnection(const std::string& address) : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in to = {};
    to.sin_family = AF_INET;
    to.sin_port = htons(static_cast<uint16_t>(std::stoi(address.substr(address.rfind(':') + 1))));
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(connect(fd_, reinterpret_cast<const sockaddr*>(&to), sizeof(to)), 0) << address;
  }
  ~TcpConnection() { close(fd_); }
  TcpConnection(const TcpConnection&) = delete;
  TcpConnection& operator=(const TcpConnection&) = delete;

  void Send(const std::string& text) const {
    EXPECT_EQ(send(fd_, text.data(), text.size(), MSG_NOSIGNAL), static_cast<ssize_t>(text.size()));
  }
  // Reads until the other end closes the connection.
  std::string ReadAll() const {
    std::string all;
    char part[65536];
    for (ssize_t got = 0; (got = recv(fd_, part, sizeof(part), 0)) > 0;) all.append(part, got);
    return all;
  }

 private:
  const int fd_;
};

// Returns the whole answer, including headers.
inline std::string HttpGet(const std::string& address, const std::string& path) {
  const TcpConnection connection(address);
  connection.Send("GET " + path + " HTTP/1.0\r\nHost: " + address + "\r\nConnection: close\r\n\r\n");
  return connection.ReadAll();
}

}  // namespace refit
