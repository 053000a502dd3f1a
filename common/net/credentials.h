// Credentials for gRPC, made of files.
#pragma once

#include <grpcpp/security/credentials.h>
#include <grpcpp/security/server_credentials.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/net/certificate_files.h"
#include "refit/security.h"

namespace refit {

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
