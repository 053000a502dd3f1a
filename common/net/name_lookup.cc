#include "common/net/name_lookup.h"

#include <ares.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>

#include <algorithm>
#include <array>
#include <memory>
#include <type_traits>

#include "absl/strings/str_cat.h"
#include "refit/tensor_spec.h"

namespace refit {
namespace {

// How soon a cancelled lookup ends.
constexpr int kGlanceMs = 50;
// Of one question to one name server, before it is asked again or another one is asked.
constexpr int kQuestionTimeoutMs = 1'000;
constexpr int kTries = 2;

struct Outcome {
  bool done = false;
  int status = ARES_SUCCESS;
  std::vector<std::string> addresses;
};

std::string ToText(const ares_addrinfo_node& node) {
  std::array<char, INET6_ADDRSTRLEN> text = {};
  const void* bytes = node.ai_family == AF_INET6
                          ? static_cast<const void*>(&reinterpret_cast<const sockaddr_in6*>(node.ai_addr)->sin6_addr)
                          : static_cast<const void*>(&reinterpret_cast<const sockaddr_in*>(node.ai_addr)->sin_addr);
  return inet_ntop(node.ai_family, bytes, text.data(), text.size()) != nullptr ? text.data() : "";
}

void OnAnswer(void* argument, int status, int /*timeouts*/, ares_addrinfo* found) {
  Outcome& outcome = *static_cast<Outcome*>(argument);
  outcome.done = true;
  outcome.status = status;
  if (found == nullptr) return;
  const std::unique_ptr<ares_addrinfo, decltype(&ares_freeaddrinfo)> owner(found, ares_freeaddrinfo);
  for (const ares_addrinfo_node* node = found->nodes; node != nullptr; node = node->ai_next) {
    std::string address = ToText(*node);
    std::vector<std::string>& all = outcome.addresses;
    if (!address.empty() && std::find(all.begin(), all.end(), address) == all.end()) all.push_back(std::move(address));
  }
}

// Waits a little for name servers, and takes what came from them.
void Glance(ares_channel channel) {
  std::array<ares_socket_t, ARES_GETSOCK_MAXNUM> sockets = {};
  const int wanted = ares_getsock(channel, sockets.data(), static_cast<int>(sockets.size()));
  std::array<pollfd, ARES_GETSOCK_MAXNUM> polled = {};
  nfds_t count = 0;
  for (int i = 0; i < ARES_GETSOCK_MAXNUM; ++i) {
    const int events =
        (ARES_GETSOCK_READABLE(wanted, i) != 0 ? POLLIN : 0) | (ARES_GETSOCK_WRITABLE(wanted, i) != 0 ? POLLOUT : 0);
    if (events != 0) polled[count++] = {sockets[i], static_cast<short>(events), 0};
  }
  poll(polled.data(), count, kGlanceMs);
  ares_process_fd(channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);  // questions that timed out are asked again
  for (nfds_t i = 0; i < count; ++i) {
    const short events = polled[i].revents;
    if (events == 0) continue;
    ares_process_fd(channel, (events & ~POLLOUT) != 0 ? polled[i].fd : ARES_SOCKET_BAD,
                    (events & POLLOUT) != 0 ? polled[i].fd : ARES_SOCKET_BAD);
  }
}

}  // namespace

absl::StatusOr<std::vector<std::string>> LookUp(const std::string& name, std::chrono::milliseconds timeout,
                                                const std::function<bool()>& is_cancelled) {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  const auto not_found = [&name](absl::string_view why) {
    return absl::UnavailableError(absl::StrCat("the name '", Printable(name), "' was not found: ", why));
  };
  Outcome outcome;  // outlives the channel, which answers every question before it is gone
  ares_options options = {};
  options.timeout = kQuestionTimeoutMs;
  options.tries = kTries;
  ares_channel made = nullptr;
  const int status = ares_init_options(&made, &options, ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES);
  if (status != ARES_SUCCESS) return not_found(ares_strerror(status));
  const std::unique_ptr<std::remove_pointer_t<ares_channel>, decltype(&ares_destroy)> channel(made, ares_destroy);
  ares_addrinfo_hints hints = {};
  hints.ai_family = AF_UNSPEC;
  hints.ai_flags = ARES_AI_NOSORT | ARES_AI_ENVHOSTS;
  ares_getaddrinfo(channel.get(), name.c_str(), nullptr, &hints, OnAnswer, &outcome);
  while (!outcome.done) {
    if (is_cancelled && is_cancelled()) {
      return absl::CancelledError(absl::StrCat("lookup of the name '", Printable(name), "': cancelled"));
    }
    if (std::chrono::steady_clock::now() >= deadline) return not_found("no name server answered in time");
    Glance(channel.get());
  }
  if (outcome.status != ARES_SUCCESS) return not_found(ares_strerror(outcome.status));
  return std::move(outcome.addresses);
}

}  // namespace refit
