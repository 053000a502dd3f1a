// What a pull asks for, as the protocol says it.
#pragma once

#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/net/messages.h"
#include "refit/pull.h"

namespace refit {

// Fills in the version and the selection, but for the names: for a PullRequest, and a GetManifestRequest, which has
// none.
template <typename Request>
void FillSelection(const PullOptions& options, Request& request) {
  request.set_model(options.model);
  if (options.version.has_value()) {
    request.mutable_version()->set_number(*options.version);
  } else {
    request.mutable_version()->set_latest_committed(true);
  }
  if (options.trainer_epoch.has_value()) request.mutable_version()->set_trainer_epoch(*options.trainer_epoch);
  request.set_filter(options.filter);
  for (const LayoutRule& rule : options.rules) ToProto(rule, *request.add_rules());
  for (const auto& [name, box] : options.boxes) {
    auto& named = *request.add_boxes();
    named.set_name(name);
    ToProto(box, *named.mutable_box());
  }
}

// What begins every message of a pull: "pull of default/latest from host:port".
inline std::string PullContext(const PullOptions& options, absl::string_view address) {
  return absl::StrCat("pull of ", options.model, "/",
                      options.version.has_value() ? absl::StrCat(*options.version) : "latest", " from ", address);
}

}  // namespace refit
