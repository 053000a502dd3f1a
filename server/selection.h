// The part of a version's manifest that a request asks for.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "refit/v1/pull.pb.h"
#include "server/version.h"

namespace refit {

// Indices into the manifest, in its order: of the tensors in whose name `filter` is found (empty: all), and, if `names`
// is not empty, that are among them. INVALID_ARGUMENT for a bad filter; NOT_FOUND for a name that the version does not
// have.
absl::StatusOr<std::vector<size_t>> SelectTensors(const Version& version, const std::string& filter,
                                                  const google::protobuf::RepeatedPtrField<std::string>& names = {});

// Fills one entry.
void FillEntry(const Version& version, size_t tensor, v1::ManifestEntry& entry);

// The part of the selected manifest that begins at `first`, as long as a message may be; the first part carries the
// summary.
v1::ManifestPart MakeManifestPart(const Version& version, const std::vector<size_t>& selection, size_t first);

}  // namespace refit
