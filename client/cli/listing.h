// Versions and workers as people see them.
#pragma once

#include <string>

#include "client/cli/table.h"
#include "refit/v1/inspect.pb.h"
#include "refit/v1/types.pb.h"

namespace refit::cli {

// "open", "committed", ...
std::string StateName(v1::VersionState state);
std::string StateName(v1::WorkerState state);

// Seconds from a version's opening to its commit or abort, or to now.
double Seconds(const v1::VersionSummary& version);
// Seconds of a worker's present or last pull.
double Seconds(const v1::Worker& worker);

Table VersionTable(const google::protobuf::RepeatedPtrField<v1::VersionSummary>& versions);
Table WorkerTable(const google::protobuf::RepeatedPtrField<v1::Worker>& workers);

// One line for one change of a version: "version 3 committed: 1014 tensors, 5.10 GB in 3.20 s (1.59 GB/s)".
std::string DescribeChange(const v1::VersionSummary& version);

}  // namespace refit::cli
