#include <memory>

#include "refit/relay.h"
#include "server/relay/relay.h"

namespace refit {

absl::StatusOr<std::unique_ptr<RefitServer>> StartServer(const ServerOptions& options) {
  return RefitServer::Start(options, [](ServerParts& parts, const ServerOptions& checked) -> std::unique_ptr<Upstream> {
    return std::make_unique<Relay>(parts, checked);
  });
}

}  // namespace refit
