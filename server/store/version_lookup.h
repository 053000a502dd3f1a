// Finds versions of one model.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/net/version_key.h"
#include "refit/v1/pull.pb.h"
#include "server/store/version.h"

namespace refit {

// The versions of one model.
using Versions = std::map<VersionKey, std::shared_ptr<Version>>;

// The newest version that matches the selector; an unset selector matches the newest committed one. NOT_FOUND, listing
// what there is, if none matches.
absl::StatusOr<std::shared_ptr<Version>> FindVersion(const Versions& versions, const std::string& model,
                                                     const v1::VersionSelector& selector);

// Numbers of versions between the two that were committed, in their order.
std::vector<uint64_t> CommittedBetween(const Versions& versions, VersionKey after, VersionKey before);

// Versions whose memory must not be freed: the newest committed one, and the newest one that has bytes.
std::set<std::shared_ptr<Version>> MustStay(const Versions& versions);

}  // namespace refit
