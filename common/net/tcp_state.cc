#include "common/net/tcp_state.h"

#include <arpa/inet.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"

namespace refit {
namespace {

constexpr uint8_t kEstablished = 1;
constexpr timeval kPatience = {1, 0};
// Of the time in which there was something to send.
constexpr double kGoodPart = 0.2;
// A round trip below this is filled by any buffer.
constexpr std::chrono::milliseconds kLongPath{2};

struct Peer {
  int family = AF_INET;
  std::array<uint32_t, 4> address{};  // in network order
  uint16_t port = 0;
};

std::optional<Peer> Parse(absl::string_view text) {
  Peer peer;
  if (absl::ConsumePrefix(&text, "ipv6:")) {
    peer.family = AF_INET6;
  } else if (!absl::ConsumePrefix(&text, "ipv4:")) {
    return std::nullopt;
  }
  const size_t colon = text.rfind(':');
  int port = 0;
  if (colon == absl::string_view::npos || !absl::SimpleAtoi(text.substr(colon + 1), &port)) return std::nullopt;
  std::string host(text.substr(0, colon));
  for (const char* bracket : {"[", "]", "%5B", "%5D"}) {
    if (const size_t at = host.find(bracket); at != std::string::npos) host.erase(at, std::strlen(bracket));
  }
  peer.port = htons(static_cast<uint16_t>(port));
  if (inet_pton(peer.family, host.c_str(), peer.address.data()) != 1) return std::nullopt;
  return peer;
}

struct Request {
  nlmsghdr header;
  inet_diag_req_v2 diag;
};

Request MakeRequest(const Peer& peer) {
  Request request = {};
  request.header.nlmsg_len = sizeof(request);
  request.header.nlmsg_type = SOCK_DIAG_BY_FAMILY;
  request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
  request.diag.sdiag_family = static_cast<uint8_t>(peer.family);
  request.diag.sdiag_protocol = IPPROTO_TCP;
  request.diag.idiag_ext = 1 << (INET_DIAG_INFO - 1);
  request.diag.idiag_states = 1 << kEstablished;
  request.diag.id.idiag_dport = peer.port;
  return request;
}

std::chrono::microseconds Microseconds(uint64_t count) { return std::chrono::microseconds(count); }

// The state in one answer, if it is of this peer.
std::optional<TcpState> StateIn(const nlmsghdr& header, const Peer& peer) {
  const auto* answer = static_cast<const inet_diag_msg*>(NLMSG_DATA(&header));
  if (answer->id.idiag_dport != peer.port) return std::nullopt;
  const size_t words = peer.family == AF_INET ? 1 : 4;
  if (!std::equal(peer.address.begin(), peer.address.begin() + words, answer->id.idiag_dst)) return std::nullopt;
  size_t left = header.nlmsg_len - NLMSG_LENGTH(sizeof(*answer));
  const char* at = reinterpret_cast<const char*>(answer + 1);
  while (left >= sizeof(nlattr)) {
    nlattr attribute;
    std::memcpy(&attribute, at, sizeof(attribute));
    if (attribute.nla_len < sizeof(attribute) || attribute.nla_len > left) break;
    if (attribute.nla_type == INET_DIAG_INFO) {
      tcp_info info = {};
      std::memcpy(&info, at + NLA_HDRLEN, std::min<size_t>(attribute.nla_len - NLA_HDRLEN, sizeof(info)));
      return TcpState{Microseconds(info.tcpi_rtt), Microseconds(info.tcpi_busy_time),
                      Microseconds(info.tcpi_sndbuf_limited), Microseconds(info.tcpi_rwnd_limited)};
    }
    const size_t step = std::min<size_t>(NLA_ALIGN(attribute.nla_len), left);
    at += step;
    left -= step;
  }
  return std::nullopt;
}

absl::Status Unavailable(absl::string_view what) {
  return absl::UnavailableError(absl::StrCat("the kernel's state of connections: ", what, ": ", std::strerror(errno)));
}

}  // namespace

absl::StatusOr<TcpState> StateOfConnection(const std::string& peer_name) {
  const std::optional<Peer> peer = Parse(peer_name);
  if (!peer.has_value()) return absl::NotFoundError(absl::StrCat(peer_name, " is no TCP peer"));
  const int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
  if (fd < 0) return Unavailable("socket");
  const absl::Cleanup closer = [fd] { close(fd); };
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &kPatience, sizeof(kPatience));
  const Request request = MakeRequest(*peer);
  if (send(fd, &request, sizeof(request), 0) < 0) return Unavailable("send");
  alignas(nlmsghdr) std::array<char, 32 << 10> buffer;
  while (true) {
    const ssize_t got = recv(fd, buffer.data(), buffer.size(), 0);
    if (got <= 0) return Unavailable("recv");
    auto left = static_cast<unsigned>(got);
    for (auto* header = reinterpret_cast<nlmsghdr*>(buffer.data()); NLMSG_OK(header, left);
         header = NLMSG_NEXT(header, left)) {
      if (header->nlmsg_type == NLMSG_DONE) return absl::NotFoundError(absl::StrCat("no connection with ", peer_name));
      if (header->nlmsg_type == NLMSG_ERROR) return absl::UnavailableError("the kernel tells no state of connections");
      if (const std::optional<TcpState> state = StateIn(*header, *peer)) return *state;
    }
  }
}

std::optional<TcpBuffers> LargestTcpBuffers() {
  const auto largest = [](const char* path) {
    std::ifstream file(path);
    uint64_t least = 0;
    uint64_t usual = 0;
    uint64_t most = 0;
    file >> least >> usual >> most;
    return most;
  };
  const TcpBuffers buffers = {largest("/proc/sys/net/ipv4/tcp_wmem"), largest("/proc/sys/net/ipv4/tcp_rmem")};
  return buffers.send > 0 && buffers.receive > 0 ? std::optional(buffers) : std::nullopt;
}

std::string HeldBackBy(const TcpState& before, const TcpState& after, const TcpBuffers& buffers) {
  const std::chrono::duration<double> busy = after.busy - before.busy;
  if (after.round_trip < kLongPath || busy.count() <= 0) return "";
  const double send = std::chrono::duration<double>(after.send_limited - before.send_limited) / busy;
  const double window = std::chrono::duration<double>(after.window_limited - before.window_limited) / busy;
  const double round_trip = std::chrono::duration<double>(after.round_trip).count();
  const std::string path = absl::StrFormat("for %.0f %% of the time, on a path of %.1f ms there and back",
                                           100 * std::max(send, window), 1000 * round_trip);
  if (send >= kGoodPart && send >= window) {
    return absl::StrFormat("the send buffer was full %s: net.ipv4.tcp_wmem allows %d bytes, so at most %.1f MB/s", path,
                           buffers.send, static_cast<double>(buffers.send) / round_trip / 1e6);
  }
  if (window >= kGoodPart) {
    return absl::StrFormat(
        "the peer's receive window was full %s: it is slow, or its net.ipv4.tcp_rmem is too small (here it allows %d "
        "bytes, which would be at most %.1f MB/s)",
        path, buffers.receive, static_cast<double>(buffers.receive) / round_trip / 1e6);
  }
  return "";
}

}  // namespace refit
