#include "client/worker/received_manifest.h"

#include <limits>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/net/messages.h"

namespace refit {

ReceivedManifest::ReceivedManifest(const PullOptions& options, const PullErrors& errors)
    : options_(options), errors_(errors), boxes_(options.boxes.begin(), options.boxes.end()) {}

void ReceivedManifest::Clear() {
  parts_.clear();
  has_single_experts_ = false;
  bytes_ = 0;
}

absl::Status ReceivedManifest::Add(const v1::ManifestPart& part, const VersionSummary& version) {
  if (part.first() != parts_.size()) {
    return errors_.Breach(
        absl::StrCat("a part of the manifest from entry ", part.first(), " on; expected ", parts_.size()));
  }
  for (const v1::ManifestEntry& entry : part.entries()) {
    if (absl::Status status = AddEntry(entry, version); !status.ok()) return status;
  }
  return part.last() ? CheckComplete(version) : absl::OkStatus();
}

absl::Status ReceivedManifest::AddEntry(const v1::ManifestEntry& entry, const VersionSummary& version) {
  absl::StatusOr<TensorPart> part = PartOf(entry);
  if (!part.ok()) return part.status();
  if (absl::Status status = CheckAskedFor(*part); !status.ok()) return status;
  const uint64_t bytes = part->ByteSize();
  if (entry.bytes() != bytes) {
    return errors_.Breach(
        absl::StrCat("the manifest gives tensor ", part->ToString(), " ", entry.bytes(), " bytes; expected ", bytes));
  }
  if (parts_.size() == version.tensors || bytes > version.bytes - bytes_) {
    return errors_.Breach(absl::StrCat("the manifest has more than the header's ", version.tensors, " tensors of ",
                                       version.bytes, " bytes"));
  }
  bytes_ += bytes;
  has_single_experts_ = has_single_experts_ || entry.expert_count() > 0;
  parts_.push_back(*std::move(part));
  return absl::OkStatus();
}

absl::StatusOr<TensorPart> ReceivedManifest::PartOf(const v1::ManifestEntry& entry) const {
  absl::StatusOr<TensorSpec> spec = FromProto(entry.tensor(), std::numeric_limits<size_t>::max());
  if (!spec.ok()) return errors_.Breach(absl::StrCat("a bad entry in the manifest: ", spec.status().message()));
  if (!entry.has_box()) return TensorPart::Whole(*std::move(spec));
  if (!AsksForParts()) {
    return errors_.Breach(absl::StrCat("the manifest has a part of tensor ", spec->ToString(), " only"));
  }
  TensorPart part{*std::move(spec), FromProto(entry.box())};
  if (absl::Status status = Validate(part.box, part.tensor.shape); !status.ok()) {
    return errors_.Breach(
        absl::StrCat("a bad entry in the manifest: tensor ", part.tensor.ToString(), ": ", status.message()));
  }
  return part;
}

absl::Status ReceivedManifest::CheckAskedFor(const TensorPart& part) const {
  const auto asked = boxes_.find(part.tensor.name);
  if (asked != boxes_.end()) {
    if (part.box == asked->second) return absl::OkStatus();
    return errors_.Breach(absl::StrCat("the manifest has box ", ToString(part.box), " of tensor ",
                                       part.tensor.ToString(), "; another was asked for"));
  }
  if (!options_.rules.empty() || part.is_whole()) return absl::OkStatus();
  return errors_.Breach(
      absl::StrCat("the manifest has a part of tensor ", part.ToString(), " only; all was asked for"));
}

absl::Status ReceivedManifest::CheckComplete(const VersionSummary& version) const {
  absl::flat_hash_set<absl::string_view> names;
  names.reserve(parts_.size());
  for (const TensorPart& part : parts_) {
    if (names.insert(part.tensor.name).second) continue;
    return errors_.Breach(absl::StrCat("the manifest has tensor ", Printable(part.tensor.name), " twice"));
  }
  if (!SelectsAllTensors()) return absl::OkStatus();
  if (parts_.size() != version.tensors || (selects_all() && bytes_ != version.bytes)) {
    return errors_.Breach(absl::StrCat("the manifest has ", parts_.size(), " tensors of ", bytes_,
                                       " bytes, its header says ", version.tensors, " of ", version.bytes));
  }
  for (const auto& [name, box] : boxes_) {
    if (names.count(name) > 0) continue;
    return errors_.Breach(
        absl::StrCat("the manifest lacks tensor ", Printable(name), ", of which a box was asked for"));
  }
  return absl::OkStatus();
}

}  // namespace refit
