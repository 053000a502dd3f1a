// Tables and lines that show versions and workers.
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
// Seconds of a worker's current or last pull.
double Seconds(const v1::Worker& worker);

// The progress of a version that several ranks push: "7/8 joined", then "3/8 committed", then "8" once it is whole.
// Empty if a single trainer pushes it.
std::string RanksText(const v1::VersionSummary& version);

Table VersionTable(const google::protobuf::RepeatedPtrField<v1::VersionSummary>& versions);
Table WorkerTable(const google::protobuf::RepeatedPtrField<v1::Worker>& workers,
                  const google::protobuf::RepeatedPtrField<v1::VersionSummary>& versions);

// One line for a change of a version: "version 3 committed: 1014 tensors, 5.10 GB in 3.20 s (1.59 GB/s)". If several
// ranks push it, ", ranks 8" follows the tensors.
std::string DescribeChange(const v1::VersionSummary& version);

// NOT_FOUND for a model of which the service has no version. Names the models that it has.
absl::Status NoSuchModel(Inspector& inspector, const std::string& model);

}  // namespace refit::cli
