// What `refit pull` says once it is done.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "client/cli/options/shard_options.h"
#include "refit/pull.h"

namespace refit::cli {

struct PullReport {
  PullResult result;
  PartOptions part;
  std::string out;
  bool verified = false;
  double wire_seconds = 0;
  double verify_seconds = 0;
  double write_seconds = 0;
  double total_seconds = 0;
};

// A table of the phases and a line, where reports go if the tensors are written to `report.out`.
void Print(const PullReport& report);

nlohmann::ordered_json ToJson(const PullReport& report);

}  // namespace refit::cli
