#include "client/cli/commands/base_file.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/net/status.h"
#include "common/safetensors/safetensors.h"
#include "common/safetensors/shard_metadata.h"
#include "common/wire/digest.h"
#include "refit/memory_probe.h"
#include "refit/sizes.h"
#include "refit/tensor_spec.h"

namespace refit::cli {
namespace {

constexpr char kVersionKey[] = "refit.version";
constexpr char kEpochKey[] = "refit.trainer_epoch";
constexpr char kChunkBytesKey[] = "refit.chunk_bytes";

// A file is read in pieces of at most this size, so that an interrupt ends it at once.
constexpr uint64_t kPieceBytes = 16 << 20;

// nullopt if there is no such key.
absl::StatusOr<std::optional<uint64_t>> ReadNumber(const SafetensorsFile& file, const char* key, uint64_t least) {
  const auto found = file.metadata().find(key);
  if (found == file.metadata().end()) return std::nullopt;
  uint64_t number = 0;
  if (absl::SimpleAtoi(found->second, &number) && number >= least) return number;
  return absl::InvalidArgumentError(absl::StrCat(Printable(file.path()), ": metadata ", key,
                                                 ": expected a number of at least ", least, ", got '",
                                                 Printable(found->second), "'"));
}

// A file that is open, with its tensors in the order of their version's manifest.
struct MappedTensors {
  std::shared_ptr<const SafetensorsFile> file;
  std::vector<PullBase::Tensor> tensors;
};

absl::StatusOr<MappedTensors> Map(const std::string& path) {
  const absl::StatusOr<std::shared_ptr<const Checkpoint>> checkpoint = Checkpoint::Open(path);
  if (!checkpoint.ok()) return checkpoint.status();
  if ((*checkpoint)->files().size() != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat(Printable(path), ": expected one file as the base, got ", (*checkpoint)->files().size()));
  }
  absl::StatusOr<std::optional<std::vector<FileShard>>> shards = ReadShards(**checkpoint);
  if (!shards.ok()) return shards.status();
  MappedTensors mapped{(*checkpoint)->files().front(), {}};
  const SafetensorsFile& file = *mapped.file;
  const auto add = [&](TensorPart part, absl::Span<const std::byte> bytes) {
    mapped.tensors.push_back({std::move(part), bytes, mapped.file});
  };
  if (shards->has_value()) {
    for (FileShard& shard : **shards) {
      add(std::move(shard.part), shard.index.has_value() ? file.data(*shard.index) : absl::Span<const std::byte>());
    }
  } else {
    for (const size_t index : file.header_order()) add(TensorPart::Whole(file.tensors()[index]), file.data(index));
  }
  return mapped;
}

absl::StatusOr<uint64_t> Digest(absl::Span<const std::byte> tensor, uint64_t chunk_bytes,
                                const std::function<bool()>& is_cancelled) {
  MemoryProbe probe;
  TensorDigester digester(chunk_bytes);
  while (!tensor.empty()) {
    if (is_cancelled()) return absl::CancelledError("interrupted");
    const absl::Span<const std::byte> piece = tensor.first(std::min<uint64_t>({kPieceBytes, tensor.size()}));
    if (absl::Status status = probe.CheckReadable(piece); !status.ok()) return status;
    digester.Update(piece);
    tensor.remove_prefix(piece.size());
  }
  return digester.Finish();
}

}  // namespace

std::map<std::string, std::string> VersionMetadata(const VersionSummary& version) {
  return {{kVersionKey, absl::StrCat(version.version)},
          {kEpochKey, absl::StrCat(version.trainer_epoch)},
          {kChunkBytesKey, absl::StrCat(version.chunk_bytes)}};
}

absl::StatusOr<std::shared_ptr<const PullBase>> OpenBase(const BaseFile& file,
                                                         const std::function<bool()>& is_cancelled) {
  absl::StatusOr<MappedTensors> mapped = Map(file.path);
  if (!mapped.ok()) return mapped.status();
  const auto version = ReadNumber(*mapped->file, kVersionKey, 1);
  const auto epoch = ReadNumber(*mapped->file, kEpochKey, 0);
  const auto chunk_bytes = ReadNumber(*mapped->file, kChunkBytesKey, 1);
  for (const auto* number : {&version, &epoch, &chunk_bytes}) {
    if (!number->ok()) return number->status();
  }
  auto base = std::make_shared<PullBase>();
  base->version = file.version.value_or(version->value_or(0));
  base->trainer_epoch = file.trainer_epoch.value_or(epoch->value_or(0));
  if (base->version == 0) {
    return absl::FailedPreconditionError(absl::StrCat(Printable(file.path), " does not say which version it is"));
  }
  ManifestDigester digester;
  for (const PullBase::Tensor& tensor : mapped->tensors) {
    const absl::StatusOr<uint64_t> digest =
        Digest(tensor.bytes, chunk_bytes->value_or(kDefaultChunkBytes), is_cancelled);
    if (!digest.ok()) {
      return Annotate(digest.status(), absl::StrCat(Printable(file.path), ": tensor ", tensor.part.ToString()));
    }
    digester.Add(tensor.part, *digest);
  }
  base->digest = digester.Finish();
  base->tensors = std::move(mapped->tensors);
  return base;
}

absl::StatusOr<std::shared_ptr<const PullBase>> BaseOfWritten(const std::string& path, const StagedVersion& staged) {
  absl::StatusOr<MappedTensors> mapped = Map(path);
  if (!mapped.ok()) return mapped.status();
  const bool same = std::equal(mapped->tensors.begin(), mapped->tensors.end(), staged.tensors.begin(),
                               staged.tensors.end(), [](const auto& a, const auto& b) { return a.part == b.part; });
  if (!same) {
    return absl::AbortedError(absl::StrCat(Printable(path), " was replaced by another file meanwhile"));
  }
  auto base = std::make_shared<PullBase>();
  base->version = staged.version.version;
  base->trainer_epoch = staged.version.trainer_epoch;
  base->digest = staged.selection_digest;
  base->tensors = std::move(mapped->tensors);
  return base;
}

}  // namespace refit::cli
