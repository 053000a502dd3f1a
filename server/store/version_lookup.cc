#include "server/store/version_lookup.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/net/states.h"

namespace refit {
namespace {

bool IsLive(const Version& version, bool committed_only) {
  const v1::VersionState state = version.state();
  return state == v1::VERSION_STATE_COMMITTED || (state == v1::VERSION_STATE_OPEN && !committed_only);
}

std::string DescribeKnown(const Versions& versions) {
  constexpr size_t kShown = 10;
  std::vector<std::string> shown;
  for (auto it = versions.rbegin(); it != versions.rend() && shown.size() < kShown; ++it) {
    shown.push_back(absl::StrCat(it->first.number));
  }
  if (shown.empty()) return "it has none";
  return absl::StrCat("it has ", absl::StrJoin(shown, ", "), versions.size() > kShown ? ", ..." : "");
}

}  // namespace

absl::StatusOr<std::shared_ptr<Version>> FindVersion(const Versions& versions, const std::string& model,
                                                     const v1::VersionSelector& selector) {
  const std::string of_epoch =
      selector.has_trainer_epoch() ? absl::StrCat(" of trainer epoch ", selector.trainer_epoch()) : "";
  const bool is_number = selector.selector_case() == v1::VersionSelector::kNumber;
  const bool committed_only = selector.selector_case() != v1::VersionSelector::kLatest || !selector.latest();
  for (auto it = versions.rbegin(); it != versions.rend(); ++it) {
    const auto& [key, version] = *it;
    if (selector.has_trainer_epoch() && key.epoch != selector.trainer_epoch()) continue;
    if (is_number ? key.number == selector.number() : IsLive(*version, committed_only)) return version;
  }
  const std::string wanted = is_number        ? absl::StrCat("version ", selector.number())
                             : committed_only ? "committed version"
                                              : "live version";
  return absl::NotFoundError(
      absl::StrCat("model '", Printable(model), "' has no ", wanted, of_epoch, "; ", DescribeKnown(versions)));
}

std::vector<uint64_t> CommittedBetween(const Versions& versions, VersionKey after, VersionKey before) {
  std::vector<uint64_t> numbers;
  for (auto it = versions.upper_bound(after); it != versions.end() && it->first < before; ++it) {
    if (WasCommitted(it->second->state())) numbers.push_back(it->first.number);
  }
  return numbers;
}

std::set<std::shared_ptr<Version>> MustStay(const Versions& versions) {
  std::set<std::shared_ptr<Version>> stay;
  for (auto it = versions.rbegin(); it != versions.rend(); ++it) {
    if (!IsLive(*it->second, /*committed_only=*/true)) continue;
    stay.insert(it->second);
    if (it->second->bytes() > 0) break;
  }
  return stay;
}

}  // namespace refit
