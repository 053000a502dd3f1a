// The digest over the selected tensors of a version.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "server/pull/part_table.h"
#include "server/pull/selection.h"
#include "server/store/version.h"

namespace refit {

// Of a version that was committed. Reads parts that no pull has read completely.
absl::StatusOr<uint64_t> SelectionDigest(const std::shared_ptr<Version>& version,
                                         const std::vector<Selected>& selection, PartTable& parts);

// The same as far as it is known: nullopt if parts would have to be read.
std::optional<uint64_t> KnownSelectionDigest(const Version& version, const std::vector<Selected>& selection,
                                             const PartTable& parts);

}  // namespace refit
