// Who may do what: roles of tokens and of certificate names.
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

// Each may do what those before it may. Viewers look (InspectService), workers also take (PullService), trainers also
// push and abort (PushService).
enum class Role { kViewer, kWorker, kTrainer };

const char* RoleName(Role role);

// Thread-safe. Without files everyone may do everything.
class Authorizer {
 public:
  Authorizer() = default;
  // INVALID_ARGUMENT, naming file and line but never what stands there; other codes as ReadSecretFile.
  static absl::StatusOr<std::shared_ptr<const Authorizer>> Load(const AuthorizationFiles& files, ReloadReport report);

  // Whether the peer of this call has at least this role. A token counts rather than a certificate, if a call has both.
  // UNAUTHENTICATED without credentials, or with some that have no role; PERMISSION_DENIED, naming the role that is
  // needed and who the peer is, with a lesser one. Costs a stat of each file.
  absl::Status Check(const grpc::CallbackServerContext& context, Role needed) const;

 private:
  using Roles = std::map<std::string, Role>;  // by certificate name, or by a token's digest

  struct Peer {
    std::string name;  // never a token
    Role role;
  };
  absl::StatusOr<Peer> Identify(const grpc::CallbackServerContext& context) const;

  std::shared_ptr<WatchedFile<Roles>> tokens_;
  std::shared_ptr<WatchedFile<Roles>> roles_;
};

}  // namespace refit
