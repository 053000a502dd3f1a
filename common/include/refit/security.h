// Who we are and whom we trust: TLS and bearer tokens, as files. In plain text without TLS files.
#pragma once

#include <functional>
#include <string>

#include "absl/status/status.h"

namespace refit {

// Told of each time that changed files were read again: OK if they are in use now, otherwise why the old contents stay.
// Messages name the file, never what is in it.
using ReloadReport = std::function<void(const absl::Status&)>;

// A client's. TLS as soon as one of the first four is given; then `ca` must be. PEM files, read again when they change.
struct ClientSecurity {
  // Who signs the services that are trusted.
  std::string ca;
  // Mutual TLS: our own certificate and its key.
  std::string certificate;
  std::string key;
  // The name that the service's certificate must carry, instead of the address's host.
  std::string server_name;
  // A file with a bearer token and nothing else, which every call carries. Only sent over TLS or to this host.
  std::string token_file;

  bool tls() const { return !(ca.empty() && certificate.empty() && key.empty() && server_name.empty()); }
};

// A service's. Without a certificate: plain text.
struct ServerSecurity {
  std::string certificate;
  std::string key;
  // Mutual TLS: who signs the clients that may connect. Empty: clients need no certificate.
  std::string client_ca;

  bool tls() const { return !certificate.empty(); }
};

}  // namespace refit
