#include "server/pull/selection.h"

#include <map>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/adapters/layout_rules.h"
#include "common/adapters/python_regex.h"
#include "common/net/messages.h"
#include "common/net/status.h"

namespace refit {
namespace {

constexpr size_t kPartBytes = 1 << 20;  // well below every message limit

template <typename Request>
absl::StatusOr<SelectionRequest> RulesAndBoxes(const Request& request) {
  SelectionRequest selection;
  selection.filter = request.filter();
  for (const v1::LayoutRule& proto : request.rules()) {
    absl::StatusOr<LayoutRule> rule = FromProto(proto);
    if (!rule.ok()) return rule.status();
    selection.rules.push_back(*std::move(rule));
  }
  selection.boxes.assign(request.boxes().begin(), request.boxes().end());
  return selection;
}

// The requested names, each of which must be found.
class Wanted {
 public:
  void Add(std::string name) { names_.insert(std::move(name)); }
  void Found(const std::string& name) { names_.erase(name); }
  absl::Status CheckAllFound(const Version& version) const {
    if (names_.empty()) return absl::OkStatus();
    return absl::NotFoundError(
        absl::StrCat("version ", version.Label(), " has no tensor named '", Printable(*names_.begin()), "'"));
  }

 private:
  std::set<std::string> names_;
};

absl::StatusOr<std::map<std::string, Box>> BoxesByName(const std::vector<v1::NamedBox>& boxes) {
  std::map<std::string, Box> by_name;
  for (const v1::NamedBox& named : boxes) {
    if (by_name.emplace(named.name(), FromProto(named.box())).second) continue;
    return absl::InvalidArgumentError(absl::StrCat("two boxes are given for tensor '", Printable(named.name()), "'"));
  }
  return by_name;
}

// Cuts tensors as the request says.
class Cutter {
 public:
  static absl::StatusOr<Cutter> Make(const SelectionRequest& request) {
    absl::StatusOr<LayoutRules> rules = LayoutRules::Compile(request.rules);
    if (!rules.ok()) return rules.status();
    absl::StatusOr<std::map<std::string, Box>> boxes = BoxesByName(request.boxes);
    if (!boxes.ok()) return boxes.status();
    return Cutter(*std::move(rules), *std::move(boxes));
  }

  // Rules are applied to every tensor of the version, selected or not: whether a rule applies does not depend on the
  // filter. Nullopt for an expert that belongs to another part.
  absl::StatusOr<std::optional<Box>> BoxOf(const VersionPlan::Output& output) {
    const TensorSpec& spec = output.planned.hf;
    absl::StatusOr<std::optional<Box>> box = rules_.BoxOf(output.planned);
    const auto given = boxes_.find(spec.name);
    if (!box.ok() || given == boxes_.end()) return box;
    if (absl::Status status = Validate(given->second, spec.shape); !status.ok()) {
      return Annotate(status, absl::StrCat("tensor ", spec.ToString()));
    }
    return given->second;
  }

  absl::Status CheckAllApplied() const { return rules_.CheckAllApplied(); }

 private:
  Cutter(LayoutRules rules, std::map<std::string, Box> boxes) : rules_(std::move(rules)), boxes_(std::move(boxes)) {}

  LayoutRules rules_;
  std::map<std::string, Box> boxes_;
};

}  // namespace

absl::StatusOr<SelectionRequest> SelectionOf(const v1::PullRequest& request) {
  absl::StatusOr<SelectionRequest> selection = RulesAndBoxes(request);
  if (selection.ok()) selection->names.assign(request.names().begin(), request.names().end());
  return selection;
}

absl::StatusOr<SelectionRequest> SelectionOf(const v1::GetManifestRequest& request) { return RulesAndBoxes(request); }

absl::StatusOr<std::vector<Selected>> SelectTensors(const Version& version, const SelectionRequest& request) {
  std::shared_ptr<const PythonRegex> regex;
  if (!request.filter.empty()) {
    absl::StatusOr<std::shared_ptr<const PythonRegex>> compiled = PythonRegex::Compile(request.filter);
    if (!compiled.ok()) return compiled.status();
    regex = *std::move(compiled);
  }
  absl::StatusOr<Cutter> cutter = Cutter::Make(request);
  if (!cutter.ok()) return cutter.status();
  const std::set<std::string> names(request.names.begin(), request.names.end());
  Wanted wanted;
  for (const std::string& name : names) wanted.Add(name);
  for (const v1::NamedBox& box : request.boxes) wanted.Add(box.name());

  std::vector<Selected> selection;
  for (size_t i = 0; i < version.size(); ++i) {
    const TensorSpec& spec = version.spec(i);
    wanted.Found(spec.name);
    absl::StatusOr<std::optional<Box>> box = cutter->BoxOf(version.plan().outputs[i]);
    if (!box.ok()) return box.status();
    if (!box->has_value()) continue;
    if (!names.empty() && names.count(spec.name) == 0) continue;
    if (regex != nullptr && !regex->Search(spec.name)) continue;
    const bool whole = IsWhole(**box, spec.shape);
    selection.push_back({i, **std::move(box), whole});
  }
  if (absl::Status status = wanted.CheckAllFound(version); !status.ok()) return status;
  if (absl::Status status = cutter->CheckAllApplied(); !status.ok()) return status;
  if (selection.empty() && regex != nullptr) {
    return absl::NotFoundError(absl::StrCat("version ", version.Label(), ": filter '", Printable(request.filter),
                                            "' selects none of ",
                                            names.empty() ? absl::StrCat("its ", version.size(), " tensors")
                                                          : std::string("the tensors that are asked for by name")));
  }
  return selection;
}

void FillEntry(const Version& version, const Selected& selected, const PartTable& parts, v1::ManifestEntry& entry) {
  const TensorSpec& spec = version.spec(selected.tensor);
  ToProto(spec, *entry.mutable_tensor());
  entry.set_bytes(static_cast<uint64_t>(ElementCount(selected.box)) * ElementSize(spec.dtype));
  std::optional<uint64_t> digest;
  if (selected.whole) {
    digest = version.tensor_digest(selected.tensor);
  } else {
    ToProto(selected.box, *entry.mutable_box());
    // Only a part that was pulled has a digest. It is not computed for a manifest.
    const std::shared_ptr<VersionPart> pulled = parts.Find(version, selected.tensor, selected.box);
    if (pulled != nullptr) digest = pulled->digest();
  }
  if (digest.has_value()) entry.set_digest(*digest);
  const PlannedOutput& planned = version.plan().outputs[selected.tensor].planned;
  entry.set_experts(planned.experts);
  if (!planned.expert.has_value()) return;
  entry.set_expert(static_cast<uint64_t>(planned.expert->index));
  entry.set_expert_count(static_cast<uint64_t>(planned.expert->count));
}

void FillManifestPart(const Version& version, const std::vector<Selected>& selection, const PartTable& parts,
                      size_t first, v1::ManifestPart& part) {
  part.set_first(first);
  if (first == 0) *part.mutable_summary() = version.Summary();
  size_t bytes = 0;
  size_t next = first;
  for (; next < selection.size() && bytes < kPartBytes; ++next) {
    v1::ManifestEntry& entry = *part.add_entries();
    FillEntry(version, selection[next], parts, entry);
    bytes += entry.ByteSizeLong();
  }
  part.set_last(next == selection.size());
}

}  // namespace refit
