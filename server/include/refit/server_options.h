// How a service runs: the same settings as refit-server's flags.
#pragma once

#include <string>

#include "refit/authorization_files.h"
#include "refit/event_log.h"
#include "refit/limits.h"
#include "refit/security.h"
#include "refit/store_options.h"

namespace refit {

// A plain value. RefitServer::Start checks and copies it.
struct ServerOptions {
  // "host:port" (port 0: any free one), or "unix:/path". A host that is not loopback is refused without TLS unless
  // allow_plaintext.
  std::string listen = "127.0.0.1:50051";
  bool allow_plaintext = false;
  ServerSecurity security;
  // Without: everyone may do everything.
  AuthorizationFiles authorization;
  StoreOptions store;
  Limits limits;
  // Committed versions are kept in this folder too, and served again after a restart. Empty: they are not. Not together
  // with streamed versions (retain_versions 0).
  std::string spool;
  // The spool's folder may belong to another user, and others may write to it.
  bool trust_spool = false;
  // "host:port" to serve metrics on, in plain HTTP for Prometheus: an IPv4 address or localhost, loopback unless
  // allow_plaintext. Empty: nowhere.
  std::string metrics;
  // "host:port" or "unix:/path" where health probes (grpc.health.v1) are answered in plain text, whatever `security`
  // asks of others. Empty: only on `listen`.
  std::string health;
  // Threads that convert: one for each stream that is pushed at the time, all together for a large tensor that is
  // published in process (the caller's thread does its part too). 0: one for each two CPUs that the process may use, at
  // least one.
  int convert_threads = 0;
  EventLog log;
};

}  // namespace refit
