// TLS options of the benchmark programs.
#pragma once

#include <CLI/CLI.hpp>

#include "common/net/credentials.h"

namespace refit {

inline void AddSecurityOptions(CLI::App& app, ClientSecurity& security) {
  app.add_option("--tls-ca", security.ca);
  app.add_option("--tls-cert", security.certificate);
  app.add_option("--tls-key", security.key);
}

}  // namespace refit
