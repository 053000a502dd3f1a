// A folder of throw-away certificates: all that mutual TLS with roles needs to be tried out.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace refit {

struct CertificateFolderOptions {
  // Names and addresses of the service, besides localhost, 127.0.0.1 and ::1.
  std::vector<std::string> hosts;
  std::chrono::seconds valid_for = std::chrono::hours(24 * 30);
};

// The clients that get certificates, each named like its role.
inline constexpr const char* kCertificateRoles[] = {"trainer", "worker", "viewer"};

// Writes ca.pem, server.pem, server.key, a .pem and .key for each role, and `roles`, which gives each name its role
// (see server/access/authorizer.h). Makes the folder, closed to others, if it is not there. The authority's key is not
// kept, so that nobody can sign anything more. Returns the names of the files. ALREADY_EXISTS, naming it, and nothing
// is written, if one of them is there; INVALID_ARGUMENT for a host that is none; other codes as the system has them.
absl::StatusOr<std::vector<std::string>> MakeCertificateFolder(const std::string& folder,
                                                               const CertificateFolderOptions& options);

// Writes a new file, closed to others if it is secret. ALREADY_EXISTS if it is there.
absl::Status WriteNewFile(const std::string& path, absl::string_view contents, bool is_secret);

}  // namespace refit
