// Orders the versions of a model. A larger epoch of the trainer begins a lineage, whose numbers may start again.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "refit/v1/types.pb.h"
#include "refit/version_summary.h"

namespace refit {

struct VersionKey {
  uint64_t epoch = 0;  // trainer_epoch
  uint64_t number = 0;

  friend bool operator==(const VersionKey& a, const VersionKey& b) {
    return a.epoch == b.epoch && a.number == b.number;
  }
  friend bool operator!=(const VersionKey& a, const VersionKey& b) { return !(a == b); }
  friend bool operator<(const VersionKey& a, const VersionKey& b) {
    return std::pair(a.epoch, a.number) < std::pair(b.epoch, b.number);
  }
};

inline VersionKey KeyOf(const v1::VersionSummary& version) { return {version.trainer_epoch(), version.version()}; }
inline VersionKey KeyOf(const VersionSummary& version) { return {version.trainer_epoch, version.version}; }

// "version 3" or, if epochs are used, "version 3 of epoch 7".
inline std::string Describe(const VersionKey& key) {
  return absl::StrCat("version ", key.number, key.epoch == 0 ? "" : absl::StrCat(" of epoch ", key.epoch));
}

}  // namespace refit
