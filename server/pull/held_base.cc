#include "server/pull/held_base.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/delta/delta_composer.h"
#include "common/net/states.h"
#include "server/pull/selection_digest.h"

namespace refit {
namespace {

// Shorter chunks are only told apart as changed or unchanged.
constexpr size_t kLeastDeltaBytes = 128;

absl::Status CheckUsable(const Version& base, const Version& version) {
  if (!WasCommitted(base.state())) {
    return absl::FailedPreconditionError(
        absl::StrCat("version ", base.number(), " is ", StateName(base.state()), " here"));
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
  const std::vector<std::shared_ptr<Version>> chain = context.deltas.Chain(base, *version);
  if (chain.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat("version ", base->number(), " is ", StateName(base->state()),
                     " here: its bytes are gone, and no deltas of it are left (--retain, --delta-history)"));
  }
  return absl::WrapUnique(new HeldBase(context, chain, std::move(version), selection));
}

HeldBase::HeldBase(PullContext& context, const std::vector<std::shared_ptr<Version>>& chain,
                   std::shared_ptr<Version> version, const std::vector<Selected>& selection)
    : parts_(context.parts), deltas_(context.deltas), version_(std::move(version)), selection_(selection) {
  chain_.reserve(chain.size());
  tensors_.resize(chain.size());
  for (size_t link = 0; link < chain.size(); ++link) {
    chain_.emplace_back(chain[link]);
    Match(link);
  }
}

// Finds the selected tensors that have the same dtype and shape in a version of the chain.
void HeldBase::Match(size_t link) {
  const Version& version = *chain_[link];
  absl::flat_hash_map<absl::string_view, size_t> by_name;
  by_name.reserve(version.size());
  for (size_t i = 0; i < version.size(); ++i) by_name.emplace(version.spec(i).name, i);
  tensors_[link].resize(selection_.size());
  for (size_t i = 0; i < selection_.size(); ++i) {
    const TensorSpec& spec = version_->spec(selection_[i].tensor);
    const auto found = by_name.find(spec.name);
    if (found != by_name.end() && version.spec(found->second) == spec) tensors_[link][i] = found->second;
  }
}

PartChunks HeldBase::PartOf(size_t link, size_t index) {
  const Selected& selected = selection_[index];
  const std::shared_ptr<Version>& version = chain_[link].version();
  const size_t tensor = *tensors_[link][index];
  return {version, tensor, selected.whole ? nullptr : parts_.Get(version, tensor, selected.box)};
}

void HeldBase::Enter(size_t index) {
  if (current_ == index) return;
  current_ = index;
  steps_.clear();
  composed_.reset();
  for (const auto& tensors : tensors_) {
    if (!tensors[index].has_value()) return;
  }
  for (size_t link = 0; link < chain_.size(); ++link) steps_.push_back({PartOf(link, index), nullptr});
}

DeltaChunk HeldBase::Get(size_t index, uint64_t chunk, const Version::Chunk& ready) {
  Enter(index);
  if (steps_.empty() || ready.bytes.empty()) return {};
  if (steps_.front().from.digest(chunk) == ready.digest) return {EncodedDelta::Kind::kUnchanged};
  if (ready.bytes.size() < kLeastDeltaBytes) return {};
  if (steps_.size() == 1) return GetStep(0, chunk, ready);
  const Selected& selected = selection_[index];
  if (composed_ == nullptr) {
    composed_ = deltas_.Get(chain_.front().version(), version_, selected.tensor, selected.box);
  }
  return composed_->Get(chunk, [&] { return Compose(chunk, ready); });
}

// What turns a chunk of a version of the chain into the next one's. The chunk is encoded if both are here.
DeltaChunk HeldBase::GetStep(size_t step, uint64_t chunk, const Version::Chunk& ready) {
  Step& from = steps_[step];
  const bool is_last = step + 1 == steps_.size();
  const PartChunks& to = is_last ? from.from : steps_[step + 1].from;
  if (from.delta == nullptr) {
    const Selected& selected = selection_[*current_];
    from.delta = deltas_.Get(from.from.version, is_last ? version_ : to.version, is_last ? selected.tensor : to.tensor,
                             selected.box);
  }
  if (!is_last) return from.delta->Find(chunk);
  return from.delta->Get(chunk, [&]() -> absl::StatusOr<EncodedDelta> {
    const absl::StatusOr<std::optional<Version::Chunk>> base = from.from.Get(chunk);
    if (!base.ok()) return base.status();  // it was retired, and its memory given to another version
    if (!base->has_value()) return absl::UnavailableError("not converted");
    thread_local DeltaEncoder encoder;  // keeps its memory
    return encoder.Encode((*base)->bytes, ready.bytes, ElementSize(version_->spec(selection_[*current_].tensor).dtype));
  });
}

absl::StatusOr<EncodedDelta> HeldBase::Compose(uint64_t chunk, const Version::Chunk& ready) {
  std::vector<std::shared_ptr<const Buffer>> payloads;
  for (size_t step = 0; step < steps_.size(); ++step) {
    const bool is_last = step + 1 == steps_.size();
    const std::optional<uint64_t> next = is_last ? ready.digest : steps_[step + 1].from.digest(chunk);
    if (steps_[step].from.digest(chunk) == next) continue;
    const DeltaChunk delta = GetStep(step, chunk, ready);
    if (delta.kind == EncodedDelta::Kind::kRaw) return EncodedDelta{EncodedDelta::Kind::kRaw};
    if (delta.payload != nullptr) payloads.push_back(delta.payload);
  }
  std::vector<absl::Span<const std::byte>> spans;
  spans.reserve(payloads.size());
  for (const std::shared_ptr<const Buffer>& payload : payloads) spans.push_back(payload->span());
  thread_local DeltaComposer composer;  // keeps its memory
  return composer.Compose(spans, ready.bytes.size(), ElementSize(version_->spec(selection_[*current_].tensor).dtype));
}

}  // namespace refit
