// Selects the part of a version's manifest that a request asks for.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "refit/box.h"
#include "refit/layout_rule.h"
#include "refit/v1/pull.pb.h"
#include "server/pull/part_table.h"
#include "server/store/version.h"

namespace refit {

// A tensor of the manifest, and the requested box of it.
struct Selected {
  size_t tensor = 0;  // index into the version
  Box box;
  bool whole = true;
};

// The selection in a GetManifestRequest or PullRequest.
struct SelectionRequest {
  std::string filter;
  std::vector<std::string> names;
  std::vector<LayoutRule> rules;
  std::vector<v1::NamedBox> boxes;
};
// INVALID_ARGUMENT for a bad layout rule.
absl::StatusOr<SelectionRequest> SelectionOf(const v1::PullRequest& request);
absl::StatusOr<SelectionRequest> SelectionOf(const v1::GetManifestRequest& request);

// The selected tensors, in the manifest's order: those in whose name `filter` is found (empty: all), and that are among
// `names` unless that is empty; each cut by rules and boxes. INVALID_ARGUMENT for a bad filter, rule or box; NOT_FOUND
// for a name that the version does not have, a rule that applies to none of its tensors, or a filter that selects none.
absl::StatusOr<std::vector<Selected>> SelectTensors(const Version& version, const SelectionRequest& request);

// Fills one entry. A part's digest is known once a pull has sent the whole part.
void FillEntry(const Version& version, const Selected& selected, const PartTable& parts, v1::ManifestEntry& entry);

// Fills `part`, which is empty, with the entries of the selected manifest from `first` on, as many as a message may
// have. The first part contains the summary.
void FillManifestPart(const Version& version, const std::vector<Selected>& selection, const PartTable& parts,
                      size_t first, v1::ManifestPart& part);

}  // namespace refit
