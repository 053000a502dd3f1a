#include "common/net/listening_sockets.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <filesystem>
#include <string>
#include <system_error>

#include "absl/strings/numbers.h"

namespace refit {
namespace {

bool ListensOn(int fd, int port, absl::string_view unix_path) {
  int listens = 0;
  socklen_t size = sizeof(listens);
  if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) != 0 || listens == 0) return false;
  sockaddr_storage address = {};
  size = sizeof(address);
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) return false;
  switch (address.ss_family) {
    case AF_INET:
      return port != 0 && ntohs(reinterpret_cast<const sockaddr_in&>(address).sin_port) == port;
    case AF_INET6:
      return port != 0 && ntohs(reinterpret_cast<const sockaddr_in6&>(address).sin6_port) == port;
    case AF_UNIX:
      return port == 0 && !unix_path.empty() && unix_path == reinterpret_cast<const sockaddr_un&>(address).sun_path;
    default:
      return false;
  }
}

}  // namespace

std::vector<int> ListeningSockets(int port, absl::string_view unix_path) {
  std::vector<int> sockets;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd", error)) {
    int fd = -1;
    if (absl::SimpleAtoi(entry.path().filename().string(), &fd) && ListensOn(fd, port, unix_path))
      sockets.push_back(fd);
  }
  return sockets;
}

}  // namespace refit
