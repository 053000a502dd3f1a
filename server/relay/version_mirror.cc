#include "server/relay/version_mirror.h"

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "client/worker/run_pull.h"
#include "refit/pull.h"
#include "server/relay/listen_above.h"
#include "server/relay/manifest_above.h"
#include "server/store/version_store.h"

namespace refit {
namespace {

// While the service above cannot be reached, the version stays open here for so long, with what has come.
constexpr std::chrono::minutes kResumeWithin{10};

// Writes tensors into a version of the store, which passes each chunk on.
class MirrorSink final : public TensorSink {
 public:
  MirrorSink(Version& version, int64_t opened_at_ns, Received& received)
      : version_(version), opened_at_ns_(opened_at_ns), received_(received) {}

  absl::Status Begin(const VersionSummary& version, const std::vector<TensorPart>& tensors) override {
    bool same = version.opened_at_ns == opened_at_ns_ && tensors.size() == version_.size();
    for (size_t i = 0; same && i < tensors.size(); ++i) same = tensors[i].tensor == version_.spec(i);
    if (same) return absl::OkStatus();
    return absl::AbortedError(absl::StrCat("version ", version_.Label(), " was replaced above by another"));
  }

  absl::StatusOr<absl::Span<std::byte>> Place(size_t index) override {
    absl::StatusOr<std::shared_ptr<Buffer>> memory = version_.DataFor(index);
    if (!memory.ok()) return memory.status();
    tensor_ = index;
    published_ = 0;
    return absl::MakeSpan((*memory)->data(), version_.spec(index).ByteSize());
  }

  // The pull asks this if deltas come. Their result is only known to be right once the tensor's digest is checked.
  bool TakesChunks() override {
    whole_tensors_ = true;
    return false;
  }

  // Over several connections a tensor comes in no order.
  bool TakesSeveral() override {
    whole_tensors_ = true;
    return true;
  }

  void Progress(uint64_t bytes) override {
    received_.tensor_bytes += bytes;
    if (whole_tensors_ || bytes == 0) return;
    Publish(tensor_, published_, bytes);
    published_ += bytes;
  }

  absl::Status Done(size_t index) override {
    const uint64_t begin = whole_tensors_ ? 0 : published_;
    const uint64_t rest = version_.spec(index).ByteSize() - begin;
    if (rest > 0 || begin == 0) Publish(index, begin, rest);
    return absl::OkStatus();
  }

 private:
  void Publish(size_t index, uint64_t begin, uint64_t bytes) {
    const uint64_t element = ElementSize(version_.spec(index).dtype);
    const auto first = static_cast<int64_t>(begin / element);
    const auto count = static_cast<int64_t>(bytes / element);
    ChunkCounts written = version_.NoChunks(index);
    if (count > 0) written.Add({first, 1, count, count});
    version_.Publish(index, written);
  }

  Version& version_;
  const int64_t opened_at_ns_;
  Received& received_;
  bool whole_tensors_ = false;
  size_t tensor_ = 0;       // the last one that was placed
  uint64_t published_ = 0;  // bytes of it, unless whole_tensors_
};

// The newest version here, as the base of deltas. Its tensors are kept as long as it is used.
std::shared_ptr<const PullBase> NewestHere(const VersionStore& store, const std::string& model) {
  v1::VersionSelector newest;
  newest.set_latest_committed(true);
  const absl::StatusOr<std::shared_ptr<Version>> version = store.Find(model, newest);
  if (!version.ok()) return nullptr;
  auto base = std::make_shared<PullBase>();
  base->version = (*version)->number();
  base->trainer_epoch = (*version)->key().epoch;
  base->digest = (*version)->Summary().manifest_digest();
  for (size_t i = 0; i < (*version)->size(); ++i) {
    absl::StatusOr<std::shared_ptr<const Buffer>> tensor = (*version)->GetTensor(i);
    if (!tensor.ok()) return nullptr;
    const TensorSpec& spec = (*version)->spec(i);
    const absl::Span<const std::byte> bytes((*tensor)->data(), spec.ByteSize());
    base->tensors.push_back({TensorPart::Whole(spec), bytes, *std::move(tensor)});
  }
  return base;
}

absl::StatusOr<std::shared_ptr<Version>> Open(ManifestAbove manifest, const Above& above, VersionStore& store) {
  const v1::VersionSummary& summary = manifest.summary;
  VersionIdentity identity{summary.model(), summary.version(), summary.adapter(), above.connection->address};
  identity.trainer_epoch = summary.trainer_epoch();
  identity.hold_installs = summary.installs_held();
  identity.mirrored = Mirrored{summary.chunk_bytes(), summary.opened_at_ns()};
  absl::StatusOr<std::shared_ptr<Version>> version = store.Open(std::move(identity), 0, std::move(manifest.plan));
  if (!version.ok()) return version;
  if (absl::StatusOr<bool> joined = (*version)->Join(0, {}); !joined.ok()) return joined.status();
  return version;
}

absl::StatusOr<PullResult> PullInto(Version& version, const v1::VersionSummary& summary, const Above& above,
                                    const VersionStore& store) {
  PullOptions options;
  options.model = version.model();
  options.version = version.number();
  options.trainer_epoch = version.key().epoch;
  options.worker = above.name;
  options.life = above.life;
  options.resume_within = kResumeWithin;
  options.idle_timeout = kLongestSilenceAbove;
  options.base = NewestHere(store, version.model());
  MirrorSink sink(version, summary.opened_at_ns(), above.received);
  options.streams = above.streams;
  return RunPull(above.connection, options, sink);
}

}  // namespace

absl::Status MirrorVersion(const v1::VersionSummary& wanted, const Above& above, ServerParts& parts) {
  absl::StatusOr<ManifestAbove> manifest = GetManifestAbove(wanted, above, parts.admission.limits);
  if (!manifest.ok()) return manifest.status();
  const v1::VersionSummary summary = manifest->summary;
  absl::StatusOr<std::shared_ptr<Version>> version = Open(*std::move(manifest), above, parts.store);
  if (!version.ok()) return version.status();
  const absl::StatusOr<PullResult> pulled = PullInto(**version, summary, above, parts.store);
  absl::Status status = pulled.status();
  if (status.ok()) {
    above.received.payload_bytes += pulled->traffic.wire_bytes;
    (*version)->rank_shards().Commit(0);
    status = parts.store.Commit(**version, pulled->version.manifest_digest);
  }
  if (!status.ok()) parts.store.Abort(**version, std::string(status.message()));
  return status;
}

}  // namespace refit
