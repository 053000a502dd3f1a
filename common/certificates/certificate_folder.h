// Makes a folder of test certificates for mutual TLS with roles.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace refit {

struct CertificateFolderOptions {
  // Host names and addresses of the service, in addition to localhost, 127.0.0.1 and ::1.
  std::vector<std::string> hosts;
  std::chrono::seconds valid_for = std::chrono::hours(24 * 30);
};

// The roles for which client certificates are made. A certificate has the name of its role.
inline constexpr const char* kCertificateRoles[] = {"trainer", "relay", "worker", "viewer"};

// Writes ca.pem, server.pem, server.key, a .pem and a .key for each role, and `roles`, which maps each name to its role
// (see server/access/authorizer.h). Creates the folder, accessible to the owner only, if it does not exist. The
// authority's key is not kept, so that no more certificates can be signed. Returns the file names. ALREADY_EXISTS,
// naming the file, and nothing is written, if one of them exists; INVALID_ARGUMENT for an invalid host; other codes
// come from the system.
absl::StatusOr<std::vector<std::string>> MakeCertificateFolder(const std::string& folder,
                                                               const CertificateFolderOptions& options);

// Writes a new file. If it is secret, only the owner can read it. ALREADY_EXISTS if it exists.
absl::Status WriteNewFile(const std::string& path, absl::string_view contents, bool is_secret);

}  // namespace refit
