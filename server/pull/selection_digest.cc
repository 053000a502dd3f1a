#include "server/pull/selection_digest.h"

#include <algorithm>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "common/wire/digest.h"

namespace refit {
namespace {

bool SelectsAll(const Version& version, const std::vector<Selected>& selection) {
  return selection.size() == version.size() &&
         std::all_of(selection.begin(), selection.end(), [](const Selected& selected) { return selected.whole; });
}

// `of_box`: the digest of a part that is not a whole tensor.
absl::StatusOr<uint64_t> Digest(const Version& version, const std::vector<Selected>& selection,
                                absl::FunctionRef<absl::StatusOr<uint64_t>(const Selected&)> of_box) {
  if (SelectsAll(version, selection)) return version.Summary().manifest_digest();
  ManifestDigester digester;
  for (const Selected& selected : selection) {
    const absl::StatusOr<uint64_t> digest =
        selected.whole ? version.tensor_digest(selected.tensor).value_or(0) : of_box(selected);
    if (!digest.ok()) return digest.status();
    digester.Add(TensorPart{version.spec(selected.tensor), selected.box}, *digest);
  }
  return digester.Finish();
}

}  // namespace

absl::StatusOr<uint64_t> SelectionDigest(const std::shared_ptr<Version>& version,
                                         const std::vector<Selected>& selection, PartTable& parts) {
  return Digest(*version, selection, [&](const Selected& selected) -> absl::StatusOr<uint64_t> {
    const std::shared_ptr<VersionPart> part = parts.Get(version, selected.tensor, selected.box);
    if (const std::optional<uint64_t> digest = part->digest()) return *digest;
    // No pull has read this part completely: the worker resumed after its end. Reading the last chunk computes the
    // digest.
    const absl::StatusOr<std::optional<Version::Chunk>> last = part->GetChunk(part->chunk_count() - 1);
    if (!last.ok()) return last.status();
    if (last->has_value()) return *(*last)->tensor_digest;
    return absl::InternalError(
        absl::StrCat(part->part().ToString(), " of version ", version->Label(), " is not converted"));
  });
}

std::optional<uint64_t> KnownSelectionDigest(const Version& version, const std::vector<Selected>& selection,
                                             const PartTable& parts) {
  const absl::StatusOr<uint64_t> digest =
      Digest(version, selection, [&](const Selected& selected) -> absl::StatusOr<uint64_t> {
        const std::shared_ptr<VersionPart> part = parts.Find(version, selected.tensor, selected.box);
        const std::optional<uint64_t> known = part != nullptr ? part->digest() : std::nullopt;
        if (known.has_value()) return *known;
        return absl::UnavailableError("no pull has read it");
      });
  return digest.ok() ? std::optional(*digest) : std::nullopt;
}

}  // namespace refit
