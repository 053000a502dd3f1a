#include "server/pull/held_base.h"

#include <algorithm>
#include <string>
#include <unordered_map>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "common/net/states.h"
#include "server/pull/selection_digest.h"

namespace refit {
namespace {

// Shorter chunks are only told apart as changed or unchanged.
constexpr size_t kLeastDeltaBytes = 128;

absl::Status CheckUsable(const Version& base, const Version& version) {
  if (base.state() != v1::VERSION_STATE_COMMITTED) {
    return absl::FailedPreconditionError(
        absl::StrCat("version ", base.number(), " is ", StateName(base.state()), " here: its bytes are gone"));
  }
  if (base.is_streamed()) {
    return absl::FailedPreconditionError(
        absl::StrCat("version ", base.number(), " was streamed: this service did not keep its bytes"));
  }
  if (base.chunk_bytes() == version.chunk_bytes()) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat("version ", base.number(), " has chunks of ", base.chunk_bytes(),
                                                    " bytes, this one of ", version.chunk_bytes()));
}

absl::Status CheckDigest(const Version& base, const std::vector<Selected>& selection, const PartTable& parts,
                         uint64_t wanted) {
  const std::optional<uint64_t> digest = KnownSelectionDigest(base, selection, parts);
  if (!digest.has_value()) {
    return absl::FailedPreconditionError(
        absl::StrCat("no worker has pulled these parts of version ", base.number(), " since the service was started"));
  }
  if (*digest == wanted) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat("version ", base.number(), " of this service has other bytes"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<HeldBase>> HeldBase::Find(PullContext& context, const v1::PullRequest& request,
                                                         std::shared_ptr<Version> version,
                                                         const std::vector<Selected>& selection) {
  if (!context.deltas.is_used()) return absl::UnavailableError("this service sends no deltas (--no-deltas)");
  const auto& encodings = request.encodings();
  if (std::find(encodings.begin(), encodings.end(), v1::CHUNK_ENCODING_DELTA) == encodings.end()) {
    return absl::InvalidArgumentError("the request has a base, but not CHUNK_ENCODING_DELTA among its encodings");
  }
  const VersionKey key{request.has_base_epoch() ? request.base_epoch() : version->key().epoch, request.base_version()};
  std::shared_ptr<Version> base = context.store.FindKey(request.model(), key);
  if (base == nullptr) return absl::NotFoundError(absl::StrCat("this service has no ", Describe(key)));
  if (absl::Status status = CheckUsable(*base, *version); !status.ok()) return status;
  const absl::StatusOr<SelectionRequest> wanted = SelectionOf(request);
  if (!wanted.ok()) return wanted.status();
  const absl::StatusOr<std::vector<Selected>> base_selection = SelectTensors(*base, *wanted);
  if (!base_selection.ok()) return base_selection.status();
  absl::Status same = CheckDigest(*base, *base_selection, context.parts, request.base_digest());
  if (!same.ok()) return same;
  std::unique_ptr<HeldBase> found =
      absl::WrapUnique(new HeldBase(context, std::move(base), std::move(version), selection));
  found->Match(*base_selection);
  return found;
}

// Finds the tensors that have a part of the same dtype, shape and box in the base.
void HeldBase::Match(const std::vector<Selected>& base_selection) {
  std::unordered_map<std::string, const Selected*> by_name;
  by_name.reserve(base_selection.size());
  for (const Selected& selected : base_selection) by_name.emplace(reader_->spec(selected.tensor).name, &selected);
  tensors_.resize(selection_.size());
  for (size_t i = 0; i < selection_.size(); ++i) {
    const TensorSpec& spec = version_->spec(selection_[i].tensor);
    const auto found = by_name.find(spec.name);
    if (found == by_name.end()) continue;
    const TensorSpec& base = reader_->spec(found->second->tensor);
    if (base == spec && found->second->box == selection_[i].box) tensors_[i] = found->second->tensor;
  }
}

void HeldBase::Enter(size_t index) {
  if (current_ == index) return;
  current_ = index;
  const size_t tensor = *tensors_[index];
  const Selected& selected = selection_[index];
  base_part_ = {reader_.version(), tensor,
                selected.whole ? nullptr : parts_.Get(reader_.version(), tensor, selected.box)};
  delta_part_.reset();
}

DeltaChunk HeldBase::Get(size_t index, uint64_t chunk, const Version::Chunk& ready) {
  if (!tensors_[index].has_value() || ready.bytes.empty()) return {};
  Enter(index);
  const absl::StatusOr<std::optional<Version::Chunk>> base = base_part_.Get(chunk);
  if (!base.ok() || !base->has_value()) return {};  // the base was retired, and its memory given to another version
  if ((*base)->digest == ready.digest) return {EncodedDelta::Kind::kUnchanged};
  if (ready.bytes.size() < kLeastDeltaBytes) return {};
  if (delta_part_ == nullptr) {
    delta_part_ = deltas_.Get(reader_.version(), version_, selection_[index].tensor, selection_[index].box);
  }
  return delta_part_->Get(chunk, **base, ready);
}

}  // namespace refit
