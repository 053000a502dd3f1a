// The report that `refit pull` prints at its end.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "client/cli/options/shard_options.h"
#include "refit/pull.h"

namespace refit::cli {

struct PullReport {
  PullResult result;
  std::string server;  // as given: one address, or several
  PartOptions part;
  std::string out;
  bool verified = false;
  uint64_t base_bytes = 0;  // of the file that is the base, which is read first
  double base_seconds = 0;
  double wire_seconds = 0;
  double verify_seconds = 0;
  double write_seconds = 0;
  double total_seconds = 0;
};

// Prints a table of the phases and a summary line. They go to stderr if the tensors are written to stdout
// (`report.out`).
void Print(const PullReport& report);

nlohmann::ordered_json ToJson(const PullReport& report);

}  // namespace refit::cli
