// Names the files that assign roles to tokens and certificate names.
#pragma once

#include <string>

namespace refit {

// Text files. Each line has a role (trainer, worker, viewer) and who has it. Empty lines, and lines that begin with
// '#', are ignored. The files are read again when they change.
//
//   tokens   trainer 5f0c...              a token that CheckToken accepts; others must not have access to the file
//   roles    worker rollout.example.org      a name in the peer's certificate: its CN, or one of its SANs
struct AuthorizationFiles {
  std::string tokens;
  std::string roles;

  bool any() const { return !tokens.empty() || !roles.empty(); }
};

}  // namespace refit
