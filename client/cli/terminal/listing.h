// Versions and workers as people see them.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "client/cli/terminal/table.h"
#include "common/net/states.h"
#include "refit/inspector.h"
#include "refit/v1/inspect.pb.h"
#include "refit/v1/types.pb.h"

namespace refit::cli {

// Seconds from a version's opening to its commit or abort, or to now.
double Seconds(const v1::VersionSummary& version);
// Seconds of a worker's present or last pull.
double Seconds(const v1::Worker& worker);

// Of a version that several ranks push, how far they are: "7/8 joined", then "3/8 committed"; "8" once it is whole.
// Empty for one that a single trainer pushes.
std::string RanksText(const v1::VersionSummary& version);

Table VersionTable(const google::protobuf::RepeatedPtrField<v1::VersionSummary>& versions);
Table WorkerTable(const google::protobuf::RepeatedPtrField<v1::Worker>& workers,
                  const google::protobuf::RepeatedPtrField<v1::VersionSummary>& versions);

// One line for one change of a version: "version 3 committed: 1014 tensors, 5.10 GB in 3.20 s (1.59 GB/s)",
// with ", ranks 8" behind the tensors if several ranks push it.
std::string DescribeChange(const v1::VersionSummary& version);

// NOT_FOUND for a model that the service has no version of; names those that it has.
absl::Status NoSuchModel(Inspector& inspector, const std::string& model);

}  // namespace refit::cli
