// A certificate authority that lives in memory, to try things out with.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

struct evp_pkey_st;
struct x509_st;

namespace refit {

// PEM.
struct IssuedCertificate {
  std::string certificate;
  std::string key;
};

struct CertificateRequest {
  // At most 64 bytes.
  std::string common_name;
  // Whether it is for a service or for a client.
  bool is_server = false;
  // Host names (perhaps with a leading "*.") and IP addresses that it is good for.
  std::vector<std::string> hosts;
  // From now on.
  std::chrono::seconds valid_from = -std::chrono::minutes(5);
  std::chrono::seconds valid_until = std::chrono::hours(24);
};

// Signs with a P-256 key of its own, which never leaves this object. Thread-compatible.
class CertificateAuthority {
 public:
  // RESOURCE_EXHAUSTED or INTERNAL, with OpenSSL's reason.
  static absl::StatusOr<CertificateAuthority> Create(const std::string& common_name, std::chrono::seconds valid_until);

  // PEM.
  const std::string& certificate() const { return certificate_pem_; }

  // A new key and its certificate. INVALID_ARGUMENT for a name or host that no certificate can carry.
  absl::StatusOr<IssuedCertificate> Issue(const CertificateRequest& request) const;

 private:
  CertificateAuthority() = default;
  std::shared_ptr<evp_pkey_st> key_;
  std::shared_ptr<x509_st> certificate_;
  std::string certificate_pem_;
};

}  // namespace refit
