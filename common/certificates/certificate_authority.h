// A certificate authority in memory, for tests and trials.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

struct evp_pkey_st;
struct x509_st;

namespace refit {

// In PEM format.
struct IssuedCertificate {
  std::string certificate;
  std::string key;
};

struct CertificateRequest {
  // At most 64 bytes.
  std::string common_name;
  // Whether it is for a service. Otherwise for a client.
  bool is_server = false;
  // Host names (possibly with a leading "*.") and IP addresses for which it is valid.
  std::vector<std::string> hosts;
  // Relative to now.
  std::chrono::seconds valid_from = -std::chrono::minutes(5);
  std::chrono::seconds valid_until = std::chrono::hours(24);
};

// Signs with a P-256 key of its own. The key never leaves this object. Thread-compatible.
class CertificateAuthority {
 public:
  // RESOURCE_EXHAUSTED or INTERNAL, with OpenSSL's reason.
  static absl::StatusOr<CertificateAuthority> Create(const std::string& common_name, std::chrono::seconds valid_until);

  // In PEM format.
  const std::string& certificate() const { return certificate_pem_; }

  // Makes a new key and its certificate. INVALID_ARGUMENT for a name or host that a certificate cannot hold.
  absl::StatusOr<IssuedCertificate> Issue(const CertificateRequest& request) const;

 private:
  CertificateAuthority() = default;
  std::shared_ptr<evp_pkey_st> key_;
  std::shared_ptr<x509_st> certificate_;
  std::string certificate_pem_;
};

}  // namespace refit
