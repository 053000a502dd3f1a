#include "server/server_checks.h"

#include <algorithm>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/net/address.h"
#include "common/net/credentials.h"
#include "common/net/descriptor_client.h"
#include "common/net/status.h"
#include "refit/tensor_spec.h"
#include "server/listen_addresses.h"
#include "server/watch/metrics_endpoint.h"

namespace refit {
namespace {

constexpr uint64_t kMinChunkBytes = 4096;

absl::Status CheckSizes(const ServerOptions& options) {
  const uint64_t max_message = options.limits.max_message_bytes;
  if (options.limits.max_message_bytes < (64 << 10) || options.limits.max_message_bytes > (64 << 20)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--max-message-bytes must be 64 KiB to 64 MiB, got ", max_message, " bytes"));
  }
  const uint64_t chunk = options.store.chunk_bytes;
  if (chunk < kMinChunkBytes || chunk > max_message - kChunkOverheadBytes || chunk % 64 != 0) {
    return absl::InvalidArgumentError(absl::StrCat("--chunk-bytes must be a multiple of 64 from ", kMinChunkBytes,
                                                   " to ", max_message - kChunkOverheadBytes, " (message size less ",
                                                   kChunkOverheadBytes, ") bytes, got ", chunk));
  }
  return absl::OkStatus();
}

absl::Status CheckSpool(const ServerOptions& options) {
  if (!options.spool.empty() && options.store.retain_versions == 0) {
    return absl::InvalidArgumentError(
        "--spool keeps committed versions, but with --retain 0 there are none: tensors are given up once workers have "
        "them; leave out one of the two");
  }
  if (options.trust_spool && options.spool.empty()) {
    return absl::InvalidArgumentError("--trust-spool says how --spool is taken, and there is none");
  }
  return absl::OkStatus();
}

absl::Status CheckZone(const std::string& zone) {
  if (zone.size() <= kMaxZoneBytes && std::all_of(zone.begin(), zone.end(), absl::ascii_isgraph)) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat("--zone: expected a name of at most ", kMaxZoneBytes,
                                                 " visible ASCII characters, got '", Printable(zone), "'"));
}

absl::Status CheckRelay(const ServerOptions& options) {
  if (!options.is_relay()) return absl::OkStatus();
  if (absl::Status status = CheckAddresses(options.upstream.address); !status.ok()) {
    return Annotate(status, "--upstream");
  }
  // Files only: whether a token may be sent is checked for each address, when it is known.
  if (absl::Status status = MakeClientCredentials(options.upstream.security, "localhost:1", nullptr).status();
      !status.ok()) {
    return Annotate(status, "--upstream");
  }
  if (options.store.retain_versions > 0) return absl::OkStatus();
  return absl::InvalidArgumentError(
      "--upstream makes this a relay, which passes on whole versions, but with --retain 0 there are none; keep one at "
      "least");
}

// Beside a Unix socket is another one, with a longer path.
absl::Status CheckDescriptorPath(const ServerOptions& options, absl::string_view address) {
  const absl::string_view path = UnixPath(address);
  if (path.empty() || !options.store.shared_memory) return absl::OkStatus();
  const std::string descriptors = DescriptorPath(path);
  if (CheckAddress(absl::StrCat("unix:", descriptors)).ok()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("the path of '", address, "' has ", path.size(), " bytes; with shared memory at most ",
                   kLongestUnixPath - (descriptors.size() - path.size()), " fit, because descriptors are passed at ",
                   descriptors, ": take a shorter one, or --no-shared-memory"));
}

// Plain text is allowed only on loopback, unless allow_plaintext is set. Roles are allowed only for authenticated
// names.
absl::Status CheckSecurity(const ServerOptions& options) {
  for (const std::string& address : ListenAddresses(options.listen)) {
    if (options.security.tls() || IsLocal(address) || options.allow_plaintext) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "refusing to listen in plain text on '", address,
        "', which is not loopback: anyone who reaches it could read and replace the weights; use TLS (--tls-cert, "
        "--tls-key), or 127.0.0.1, [::1], localhost or unix:, or allow it with --allow-plaintext"));
  }
  if (!options.authorization.roles.empty() && options.security.client_ca.empty()) {
    return absl::InvalidArgumentError(
        "roles belong to names in clients' certificates, so they need the authority that signs those "
        "(--tls-client-ca)");
  }
  if (options.metrics.empty()) return absl::OkStatus();
  return MetricsEndpoint::CheckAddress(options.metrics, options.allow_plaintext);
}

}  // namespace

absl::Status CheckOptions(const ServerOptions& options) {
  for (const std::string& address : ListenAddresses(options.listen)) {
    if (absl::Status status = CheckAddress(address); !status.ok()) return Annotate(status, "--listen");
    if (absl::Status status = CheckDescriptorPath(options, address); !status.ok()) return Annotate(status, "--listen");
  }
  if (options.socket_mode != 0 && UnixPaths(options.listen).empty()) {
    return absl::InvalidArgumentError("--socket-mode is for Unix sockets, and no --listen names one (unix:/path)");
  }
  if (absl::Status status = CheckZone(options.zone); !status.ok()) return status;
  if (absl::Status status = CheckSizes(options); !status.ok()) return status;
  if (absl::Status status = CheckSpool(options); !status.ok()) return status;
  if (absl::Status status = CheckRelay(options); !status.ok()) return status;
  return CheckSecurity(options);
}

const char* DescribeSecurity(const ServerOptions& options) {
  if (!options.security.tls()) return options.authorization.any() ? "plain text, roles" : "plain text";
  if (options.security.client_ca.empty()) return options.authorization.any() ? "TLS, roles" : "TLS";
  return options.authorization.any() ? "mutual TLS, roles" : "mutual TLS";
}

}  // namespace refit
