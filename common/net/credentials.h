// Who we are and whom we trust: TLS and bearer tokens, as files. In plain text without TLS files.
#pragma once

#include <grpcpp/security/credentials.h>
#include <grpcpp/security/server_credentials.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/net/certificate_files.h"
#include "common/net/watched_file.h"

namespace refit {

// A client's. TLS as soon as one of the first four is given; then `ca` must be. PEM files, read again when they change.
struct ClientSecurity {
  // Who signs the services that are trusted.
  std::string ca;
  // Mutual TLS: our own certificate and its key.
  std::string certificate;
  std::string key;
  // The name that the service's certificate must carry, instead of the address's host.
  std::string server_name;
  // A file with a bearer token and nothing else, which every call carries. Only sent over TLS or to this host.
  std::string token_file;

  bool tls() const { return !(ca.empty() && certificate.empty() && key.empty() && server_name.empty()); }
};

// A service's. Without a certificate: plain text.
struct ServerSecurity {
  std::string certificate;
  std::string key;
  // Mutual TLS: who signs the clients that may connect. Empty: clients need no certificate.
  std::string client_ca;

  bool tls() const { return !certificate.empty(); }
};

struct ClientCredentials {
  std::shared_ptr<grpc::ChannelCredentials> channel;
  // What the credentials read from; must live as long as they are used. Null in plain text.
  std::shared_ptr<const void> files;
};

struct ServerCredentials {
  std::shared_ptr<grpc::ServerCredentials> server;
  std::shared_ptr<const void> files;
};

// A token: 16 to 4096 visible ASCII characters. INVALID_ARGUMENT, which does not show it, otherwise.
absl::Status CheckToken(absl::string_view token);

// INVALID_ARGUMENT for files that do not go together, or that cannot be used; other codes as reading a file has them.
// `address` is where the channel will lead. Tokens are added once a call, by gRPC.
absl::StatusOr<ClientCredentials> MakeClientCredentials(const ClientSecurity& security, const std::string& address,
                                                        const ReloadReport& report);
absl::StatusOr<ServerCredentials> MakeServerCredentials(const ServerSecurity& security, const ReloadReport& report);

}  // namespace refit
