// Files for TLS and bearer tokens. Without TLS files, connections are in plain text.
#pragma once

#include <functional>
#include <string>

#include "absl/status/status.h"

namespace refit {

// Called each time that changed files were read again. OK: they are in use now. Otherwise the status says why the old
// contents stay in use. Messages name the file, never its contents.
using ReloadReport = std::function<void(const absl::Status&)>;

// A client's files, in PEM format. TLS is used if one of the first four is given; then `ca` is required. Files are read
// again when they change.
struct ClientSecurity {
  // The authority whose services are trusted.
  std::string ca;
  // For mutual TLS: the client's own certificate and key.
  std::string certificate;
  std::string key;
  // The name that must be in the service's certificate, instead of the host in the address.
  std::string server_name;
  // A file that contains only a bearer token. Every call carries it. It is only sent over TLS or to this host.
  std::string token_file;

  bool tls() const { return !(ca.empty() && certificate.empty() && key.empty() && server_name.empty()); }
};

// A service's files. Without a certificate, connections are in plain text.
struct ServerSecurity {
  std::string certificate;
  std::string key;
  // For mutual TLS: the authority that signs the clients' certificates. Empty: clients need no certificate.
  std::string client_ca;

  bool tls() const { return !certificate.empty(); }
};

}  // namespace refit
