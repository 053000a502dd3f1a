#include "common/net/channel.h"

#include <grpc/grpc.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/support/channel_arguments.h>
#include <openssl/crypto.h>

#include <algorithm>
#include <atomic>
#include <limits>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/net/address.h"
#include "common/net/byte_buffer.h"
#include "common/net/connect_failure.h"
#include "common/net/grpc_wakeups.h"
#include "common/net/raw_reader.h"
#include "common/net/status.h"
#include "common/net/steady_deadline.h"
#include "refit/fork_guard.h"
#include "refit/version.h"

namespace refit {
namespace {

// How soon a cancelled connection attempt ends.
constexpr std::chrono::milliseconds kConnectGlance{50};
// For a call whose only purpose is the error that it returns.
constexpr std::chrono::milliseconds kReasonTimeout{200};
constexpr int kMaxMetadataBytes = 16 << 10;
constexpr int kMaxStreamsPerConnection = 1024;
// How soon a restarted service is reached again.
constexpr int kFirstReconnectMs = 100;
constexpr int kLongestPauseMs = 2'000;
// How long one attempt to connect may take: as long as the caller waits, within these bounds. A service on a busy host,
// or which a whole fleet reaches at once, answers late. Clients that gave up and began anew would only make it later.
constexpr std::chrono::milliseconds kShortestAttempt{2'000};
constexpr std::chrono::milliseconds kLongestAttempt{20'000};
// How often a name is looked up while the service does not answer, so that it is found soon at a new address. gRPC's
// own minimum is 30 s.
constexpr int kLookupIntervalMs = 1'000;
// The part of the peer's time to answer after which it is pinged.
constexpr double kAskAfter = 0.3;
// A connection that has not finished its handshake by then is closed.
constexpr int kHandshakeTimeoutMs = 10'000;
// How often clients may ping.
constexpr int kMinPingIntervalMs = 1'000;

// The process in which gRPC is kept started. Otherwise gRPC would stop with the last channel, and wait for one of its
// pollers, which may sleep for 10 s.
constexpr uint64_t kNotStarted = std::numeric_limits<uint64_t>::max();
std::atomic<uint64_t> grpc_started_in{kNotStarted};

int Milliseconds(std::chrono::milliseconds duration) {
  return static_cast<int>(std::clamp<int64_t>(duration.count(), 1, std::numeric_limits<int>::max()));
}

grpc::ChannelArguments ClientArguments(const ChannelOptions& options) {
  grpc::ChannelArguments arguments;
  arguments.SetUserAgentPrefix(absl::StrCat("refit/", SoftwareVersion()));
  arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
  arguments.SetMaxSendMessageSize(kMaxMessageBytes);
  arguments.SetInt(GRPC_ARG_MAX_METADATA_SIZE, kMaxMetadataBytes);
  // We resume broken transfers ourselves, from a chunk. gRPC would have to keep everything that was sent.
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  // Every channel gets a connection of its own: two connections carry twice as much.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  // Weights go directly to the service, whatever http_proxy says.
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, Milliseconds(options.keepalive_interval));
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, Milliseconds(options.keepalive_timeout));
  arguments.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, kFirstReconnectMs);
  // Despite its name, this is the time of one attempt. It does not delay the next one.
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS,
                   Milliseconds(std::clamp(options.connect_timeout, kShortestAttempt, kLongestAttempt)));
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, kLongestPauseMs);
  arguments.SetInt(GRPC_ARG_DNS_MIN_TIME_BETWEEN_RESOLUTIONS_MS, kLookupIntervalMs);
  if (!options.security.server_name.empty()) arguments.SetSslTargetNameOverride(options.security.server_name);
  return arguments;
}

// Every call on a channel that cannot connect fails at once, with the reason.
std::string WhyNotConnected(const std::shared_ptr<grpc::Channel>& channel) {
  const auto call = RawReader::Start(channel, "/grpc.health.v1.Health/Check", grpc::ByteBuffer(), kReasonTimeout);
  const absl::Status status = call->Finish(kReasonTimeout);
  return absl::IsUnavailable(status) ? std::string(status.message()) : "";
}

enum class Attempts { kMany, kOne };

absl::Status NotConnected(const std::shared_ptr<grpc::Channel>& channel, const ChannelOptions& options,
                          absl::string_view within) {
  return absl::UnavailableError(absl::StrCat("no connection to ", options.address, within,
                                             ExplainConnectFailure(WhyNotConnected(channel), options.security)));
}

absl::Status AwaitConnected(const std::shared_ptr<grpc::Channel>& channel, const ChannelOptions& options,
                            Attempts attempts) {
  const auto deadline = std::chrono::steady_clock::now() + options.connect_timeout;
  while (true) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    const auto glance = std::clamp(left, std::chrono::milliseconds::zero(), kConnectGlance);
    if (channel->WaitForConnected(SteadyDeadline(glance))) return absl::OkStatus();
    if (options.is_cancelled && options.is_cancelled()) {
      return absl::CancelledError(absl::StrCat("connection to ", options.address, ": cancelled"));
    }
    if (attempts == Attempts::kOne && channel->GetState(false) == GRPC_CHANNEL_TRANSIENT_FAILURE) {
      return NotConnected(channel, options, "");
    }
    if (left <= kConnectGlance) {
      const double seconds = std::chrono::duration<double>(options.connect_timeout).count();
      return NotConnected(channel, options, absl::StrCat(" within ", seconds, " s"));
    }
  }
}

// Kept as long as the channel is in use.
struct WatchedChannel {
  std::shared_ptr<GrpcWakeups> wakeups;
  std::shared_ptr<grpc::Channel> channel;
};

}  // namespace

absl::Status StartGrpc() {
  const uint64_t now = ProcessGeneration();
  uint64_t started = kNotStarted;
  if (!grpc_started_in.compare_exchange_strong(started, now)) return ForkGuard(started).Check("gRPC");
  // Otherwise exit() would clean up OpenSSL while gRPC's threads may be in a handshake.
  OPENSSL_init_crypto(OPENSSL_INIT_NO_ATEXIT, nullptr);
  grpc_init();
  return absl::OkStatus();
}

namespace {

absl::StatusOr<std::shared_ptr<grpc::Channel>> Connect(ChannelOptions options, Attempts attempts) {
  options.address = std::string(absl::StripAsciiWhitespace(options.address));  // from a file, it may end in a newline
  if (absl::Status status = CheckOneAddress(options.address); !status.ok()) return status;
  if (absl::Status status = StartGrpc(); !status.ok()) return Annotate(status, "connection to " + options.address);
  absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> credentials =
      MakeClientCredentials(options.security, options.address, options.on_reload);
  if (!credentials.ok()) return credentials.status();
  const std::shared_ptr<WatchedChannel> watched = MakeOwnedByProcess<WatchedChannel>();
  watched->wakeups = GrpcWakeups::Watch();
  watched->channel = grpc::CreateCustomChannel(options.address, *credentials, ClientArguments(options));
  watched->wakeups->Add(watched->channel);
  if (absl::Status status = AwaitConnected(watched->channel, options, attempts); !status.ok()) return status;
  return std::shared_ptr<grpc::Channel>(watched, watched->channel.get());
}

}  // namespace

absl::StatusOr<std::shared_ptr<grpc::Channel>> Connect(const ChannelOptions& options) {
  return Connect(options, Attempts::kMany);
}

absl::StatusOr<std::shared_ptr<grpc::Channel>> ConnectOnce(const ChannelOptions& options) {
  return Connect(options, Attempts::kOne);
}

void ConfigureServer(grpc::ServerBuilder& builder, int max_message_bytes, std::chrono::milliseconds peer_timeout) {
  const int ask_after = Milliseconds(std::chrono::duration_cast<std::chrono::milliseconds>(kAskAfter * peer_timeout));
  builder.SetMaxReceiveMessageSize(max_message_bytes);
  builder.SetMaxSendMessageSize(max_message_bytes);
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, kMaxMetadataBytes);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kMaxStreamsPerConnection);
  builder.AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, kHandshakeTimeoutMs);
  // Otherwise two services could listen on one port, and each would get some of the connections.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, ask_after);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, Milliseconds(peer_timeout) - ask_after);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, kMinPingIntervalMs);
}

}  // namespace refit
