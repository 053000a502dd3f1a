// Which tokens and certificate names may do what.
#pragma once

#include <string>

namespace refit {

// Text files, a role (trainer, worker, viewer) and what has it a line; empty lines and what follows a '#' at a line's
// beginning do not count. They are read again when they change.
//
//   tokens   trainer 5f0c...              a token as CheckToken wants it; the file must be closed to others
//   roles    worker rollout.example.org      a name that the peer's certificate carries: its CN, or one of its SANs
struct AuthorizationFiles {
  std::string tokens;
  std::string roles;

  bool any() const { return !tokens.empty() || !roles.empty(); }
};

}  // namespace refit
