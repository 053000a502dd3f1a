// Converts a version's summary between the plain struct and its protobuf message.
#pragma once

#include "refit/v1/types.pb.h"
#include "refit/version_summary.h"

namespace refit {

VersionSummary FromProto(const v1::VersionSummary& proto);
v1::VersionSummary ToProto(const VersionSummary& summary);

}  // namespace refit
