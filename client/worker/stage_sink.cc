#include "client/worker/stage_sink.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/net/status.h"

namespace refit {
namespace {

// Of the bytes that the tensors have. What has changed takes less, unless most of it came whole.
constexpr uint64_t kPartApart = 4;

}  // namespace

absl::Status StageSink::Begin(const VersionSummary& version, const std::vector<TensorPart>& tensors) {
  version_ = version;
  is_installed_ = versions_.IsInstalled(version);
  if (is_installed_) return absl::AlreadyExistsError("in use already");
  const absl::Status status = versions_.CheckMayInstall(version, way_);
  was_refused_ = !status.ok();
  if (was_refused_) return status;
  memory_.Begin(options_.place ? absl::Span<const TensorPart>() : tensors);
  staging_.version.tensors.reserve(tensors.size());
  for (const TensorPart& part : tensors) {
    staging_.version.tensors.push_back({part, {}, nullptr});
    most_apart_ += part.ByteSize();
  }
  most_apart_ /= kPartApart;
  return absl::OkStatus();
}

bool StageSink::TakesChunks() {
  if (options_.in_place) staging_.deltas = std::make_shared<StagedDeltas>();
  return is_apart();
}

absl::StatusOr<absl::Span<std::byte>> StageSink::Place(size_t index) {
  if (options_.in_place && !is_apart() && !std::exchange(torn_, true)) BeTorn();
  StagedVersion::Tensor& tensor = staging_.version.tensors[index];
  const absl::StatusOr<absl::Span<std::byte>> bytes = Memory(index);
  if (!bytes.ok()) return Annotate(bytes.status(), absl::StrCat("memory for tensor ", tensor.part.ToString()));
  if (is_apart()) {
    if (!in_use_.IsAt(tensor.part, *bytes)) {
      return GiveUp(absl::StrCat("tensor ", tensor.part.ToString(), " has other memory than before"));
    }
    staging_.deltas->Place(tensor.part, *bytes);
  }
  tensor.bytes = *bytes;
  return *bytes;
}

absl::Status StageSink::Take(const PulledChunk& chunk) {
  staging_.deltas->Take(chunk);
  if (staging_.deltas->bytes() <= most_apart_) return absl::OkStatus();
  return GiveUp(absl::StrCat("what has changed takes more than 1/", kPartApart, " of the tensors' bytes"));
}

absl::Status StageSink::Done(size_t index) {
  const bool was_last = index + 1 == staging_.version.tensors.size();
  if (!is_apart() || !was_last || AreDisjoint(staging_.version.tensors)) return absl::OkStatus();
  return GiveUp("tensors share memory");
}

absl::Status StageSink::GiveUp(std::string reason) {
  gave_up_ = std::move(reason);
  return absl::FailedPreconditionError(gave_up_);
}

bool StageSink::Adopt(size_t index, std::shared_ptr<Buffer> mapped) {
  if (options_.place) return false;
  staging_.version.tensors[index].bytes = mapped->span();
  staging_.version.tensors[index].owner = std::move(mapped);
  return true;
}

void StageSink::BeTorn() {
  versions_.SetTorn(version_);
  reporter_.Report(version_, WorkerPhase::kTorn);
}

absl::StatusOr<absl::Span<std::byte>> StageSink::Memory(size_t index) {
  StagedVersion::Tensor& tensor = staging_.version.tensors[index];
  if (options_.place) return options_.place(tensor.part);
  absl::StatusOr<std::shared_ptr<Buffer>> owner = memory_.Get(index);
  if (!owner.ok()) return owner.status();
  tensor.owner = *std::move(owner);
  return tensor.owner->span();
}

}  // namespace refit
