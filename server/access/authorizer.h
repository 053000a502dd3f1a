// Decides who may do what, by the roles of tokens and certificate names.
#pragma once

#include <grpcpp/server_context.h>

#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/net/watched_file.h"
#include "refit/authorization_files.h"

namespace refit {

// Each role may do everything that the roles before it may. Viewers inspect (InspectService), workers also pull
// (PullService), relays also report for others (RelayService), trainers also push and abort (PushService).
enum class Role { kViewer, kWorker, kRelay, kTrainer };

const char* RoleName(Role role);

// Thread-safe. Without files, everyone has every role.
class Authorizer {
 public:
  Authorizer() = default;
  // INVALID_ARGUMENT, naming file and line but never the line's contents; other codes as ReadSecretFile.
  static absl::StatusOr<std::shared_ptr<const Authorizer>> Load(const AuthorizationFiles& files, ReloadReport report);

  // Checks that the peer of this call has at least this role. If a call has a token and a certificate, the token
  // counts. UNAUTHENTICATED without credentials, or if they have no role. PERMISSION_DENIED, naming the required role
  // and the peer, if its role is lower. Costs one stat for each file.
  absl::Status Check(const grpc::CallbackServerContext& context, Role needed) const;

 private:
  using Roles = std::map<std::string, Role>;  // by certificate name, or by a token's digest

  struct Peer {
    std::string name;  // for messages; never a token
    Role role;
  };
  absl::StatusOr<Peer> Identify(const grpc::CallbackServerContext& context) const;

  std::shared_ptr<WatchedFile<Roles>> tokens_;
  std::shared_ptr<WatchedFile<Roles>> roles_;
};

}  // namespace refit
