// Makes gRPC's credentials from files.
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

// Checks a token: 16 to 4096 visible ASCII characters. INVALID_ARGUMENT otherwise, without the token in the message.
absl::Status CheckToken(absl::string_view token);

// INVALID_ARGUMENT for files that do not belong together, or cannot be used; other codes come from reading files.
// `address` is the channel's target. gRPC adds the token to each call. Credentials own the files that they read: gRPC
// may use them for longer than the channel or server exists, in a handshake under way.
absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> MakeClientCredentials(const ClientSecurity& security,
                                                                                const std::string& address,
                                                                                const ReloadReport& report);
absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> MakeServerCredentials(const ServerSecurity& security,
                                                                               const ReloadReport& report);

}  // namespace refit
