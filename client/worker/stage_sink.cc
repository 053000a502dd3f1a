#include "client/worker/stage_sink.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/net/status.h"

namespace refit {

absl::Status StageSink::Begin(const VersionSummary& version, const std::vector<TensorPart>& tensors) {
  version_ = version;
  is_installed_ = versions_.IsInstalled(version);
  if (is_installed_) return absl::AlreadyExistsError("in use already");
  const absl::Status status = versions_.CheckMayInstall(version, way_);
  was_refused_ = !status.ok();
  if (was_refused_) return status;
  memory_.Begin(options_.place ? absl::Span<const TensorPart>() : tensors);
  staged_.tensors.reserve(tensors.size());
  for (const TensorPart& part : tensors) staged_.tensors.push_back({part, {}, nullptr});
  return absl::OkStatus();
}

absl::StatusOr<absl::Span<std::byte>> StageSink::Place(size_t index) {
  if (options_.in_place && !std::exchange(torn_, true)) BeTorn();
  StagedVersion::Tensor& tensor = staged_.tensors[index];
  const absl::StatusOr<absl::Span<std::byte>> bytes = Memory(index);
  if (!bytes.ok()) return Annotate(bytes.status(), absl::StrCat("memory for tensor ", tensor.part.ToString()));
  tensor.bytes = *bytes;
  return *bytes;
}

bool StageSink::Adopt(size_t index, std::shared_ptr<Buffer> mapped) {
  if (options_.place) return false;
  staged_.tensors[index].bytes = mapped->span();
  staged_.tensors[index].owner = std::move(mapped);
  return true;
}

void StageSink::BeTorn() {
  versions_.SetTorn(version_);
  reporter_.Report(version_, WorkerPhase::kTorn);
}

absl::StatusOr<absl::Span<std::byte>> StageSink::Memory(size_t index) {
  StagedVersion::Tensor& tensor = staged_.tensors[index];
  if (options_.place) return options_.place(tensor.part);
  absl::StatusOr<std::shared_ptr<Buffer>> owner = memory_.Get(index);
  if (!owner.ok()) return owner.status();
  tensor.owner = *std::move(owner);
  return tensor.owner->span();
}

}  // namespace refit
