#include "server/spool/spooled_version.h"

#include <google/protobuf/util/json_util.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/wire/digest.h"

namespace refit {
namespace {

constexpr char kSummaryKey[] = "refit.summary";
constexpr char kPublisherKey[] = "refit.publisher";
constexpr char kDigestsKey[] = "refit.tensor_digests";
constexpr char kExpertsKey[] = "refit.experts";
// Tensors that are one expert: "tensor:expert/experts,...". Files of earlier releases have none.
constexpr char kExpertPlacesKey[] = "refit.expert_places";
constexpr size_t kDigestDigits = 16;
// How far the disk is read ahead of digesting.
constexpr size_t kReadAheadBytes = 16 << 20;

absl::StatusOr<std::map<std::string, std::string>> MetadataOf(const Version& version) {
  v1::VersionSummary summary = version.Summary();
  summary.set_spooled(true);
  std::string json;
  google::protobuf::util::JsonPrintOptions names_as_in_proto;
  names_as_in_proto.preserve_proto_field_names = true;
  if (!google::protobuf::util::MessageToJsonString(summary, &json, names_as_in_proto).ok()) {
    return absl::InternalError(absl::StrCat("version ", version.Label(), ": its summary cannot be written as JSON"));
  }
  std::string digests;
  std::vector<size_t> experts;
  std::vector<std::string> places;
  for (size_t i = 0; i < version.size(); ++i) {
    absl::StrAppend(&digests, absl::Hex(version.tensor_digest(i).value_or(0), absl::kZeroPad16));
    const PlannedOutput& planned = version.plan().outputs[i].planned;
    if (planned.experts) experts.push_back(i);
    if (!planned.expert.has_value()) continue;
    places.push_back(absl::StrCat(i, ":", planned.expert->index, "/", planned.expert->count));
  }
  return std::map<std::string, std::string>{{kSummaryKey, std::move(json)},
                                            {kPublisherKey, Printable(version.identity().publisher)},
                                            {kDigestsKey, std::move(digests)},
                                            {kExpertsKey, absl::StrJoin(experts, ",")},
                                            {kExpertPlacesKey, absl::StrJoin(places, ",")}};
}

// Asks the kernel to read what follows `bytes`, within `whole`.
void ReadAhead(absl::Span<const std::byte> whole, size_t from) {
  if (from >= whole.size()) return;
  static const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<uintptr_t>(whole.data() + from) / page * page;
  const auto end = reinterpret_cast<uintptr_t>(whole.data() + std::min(from + kReadAheadBytes, whole.size()));
  madvise(reinterpret_cast<void*>(begin), end - begin, MADV_WILLNEED);  // a hint: failure does not matter
}

std::vector<uint64_t> DigestChunks(absl::Span<const std::byte> tensor, uint64_t chunk_bytes) {
  std::vector<uint64_t> digests;
  const uint64_t count = ChunkCount(tensor.size(), chunk_bytes);
  for (uint64_t chunk = 0; chunk < count; ++chunk) {
    const uint64_t begin = chunk * chunk_bytes;
    if (begin % kReadAheadBytes < chunk_bytes) ReadAhead(tensor, begin);
    digests.push_back(DigestBytes(tensor.subspan(begin, chunk_bytes)));
  }
  return digests;
}

}  // namespace

absl::Status WriteSpooledVersion(const std::shared_ptr<Version>& version, const std::string& path,
                                 absl::FunctionRef<bool()> go_on) {
  // Keeps the version's memory as long as it is not needed for another version.
  const Version::Reader reader(version);
  absl::StatusOr<std::map<std::string, std::string>> metadata = MetadataOf(*version);
  if (!metadata.ok()) return metadata.status();
  std::vector<TensorSpec> specs;
  for (size_t i = 0; i < version->size(); ++i) specs.push_back(version->spec(i));
  // Written in order: digests and experts refer to tensors by index.
  absl::StatusOr<std::unique_ptr<SafetensorsWriter>> writer = SafetensorsWriter::Create(
      path, std::move(specs), *metadata, S_IRUSR | S_IWUSR, SafetensorsWriter::Layout::kAsGiven);
  if (!writer.ok()) return writer.status();
  for (size_t i = 0; i < version->size(); ++i) {
    for (uint64_t chunk = 0; chunk < version->chunk_count(i); ++chunk) {
      if (!go_on()) return absl::CancelledError(absl::StrCat("the service stops before ", path, " is written"));
      const absl::StatusOr<std::optional<Version::Chunk>> data = version->GetChunk(i, chunk);
      if (!data.ok()) return data.status();
      const absl::Status status = (*writer)->WriteAt(i, chunk * version->chunk_bytes(), (*data)->bytes);
      if (!status.ok()) return status;
    }
  }
  return (*writer)->Commit();
}

absl::StatusOr<SpooledFile> SpooledFile::Open(const std::string& path) {
  absl::StatusOr<std::shared_ptr<const SafetensorsFile>> opened = SafetensorsFile::Open(path);
  if (!opened.ok()) return opened.status();
  SpooledFile file;
  file.file_ = *std::move(opened);
  if (absl::Status status = file.ReadMetadata(); !status.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(Printable(path), ": ", status.message()));
  }
  return file;
}

const std::string* SpooledFile::Find(const char* key) const {
  const auto found = file_->metadata().find(key);
  return found == file_->metadata().end() ? nullptr : &found->second;
}

absl::Status SpooledFile::ReadMetadata() {
  for (const char* key : {kSummaryKey, kPublisherKey, kDigestsKey, kExpertsKey}) {
    if (Find(key) == nullptr) return absl::InvalidArgumentError(absl::StrCat("its metadata has no ", key));
  }
  google::protobuf::util::JsonParseOptions from_later_versions_too;
  from_later_versions_too.ignore_unknown_fields = true;
  if (!google::protobuf::util::JsonStringToMessage(*Find(kSummaryKey), &summary_, from_later_versions_too).ok()) {
    return absl::InvalidArgumentError(absl::StrCat("its metadata's ", kSummaryKey, " is no VersionSummary"));
  }
  const uint64_t chunk = summary_.chunk_bytes();
  if (summary_.model().empty() || summary_.version() == 0 || !summary_.has_manifest_digest() || chunk == 0 ||
      chunk % 64 != 0 || summary_.tensors() != file_->tensors().size()) {
    return absl::InvalidArgumentError(absl::StrCat("its metadata's ", kSummaryKey,
                                                   " is not that of a committed version of ", file_->tensors().size(),
                                                   " tensors"));
  }
  publisher_ = *Find(kPublisherKey);
  if (absl::Status status = ReadDigests(*Find(kDigestsKey)); !status.ok()) return status;
  if (absl::Status status = ReadExperts(*Find(kExpertsKey)); !status.ok()) return status;
  return Find(kExpertPlacesKey) == nullptr ? absl::OkStatus() : ReadExpertPlaces(*Find(kExpertPlacesKey));
}

absl::Status SpooledFile::ReadDigests(const std::string& text) {
  for (size_t at = 0; at + kDigestDigits <= text.size(); at += kDigestDigits) {
    uint64_t digest = 0;
    if (absl::SimpleHexAtoi(absl::string_view(text).substr(at, kDigestDigits), &digest)) digests_.push_back(digest);
  }
  if (digests_.size() * kDigestDigits == text.size() && digests_.size() == file_->tensors().size()) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat("its metadata's ", kDigestsKey, " is not one digest for each of ",
                                                 file_->tensors().size(), " tensors"));
}

absl::Status SpooledFile::ReadExperts(const std::string& text) {
  experts_.resize(file_->tensors().size());
  for (const absl::string_view index : absl::StrSplit(text, ',', absl::SkipEmpty())) {
    size_t tensor = 0;
    if (!absl::SimpleAtoi(index, &tensor) || tensor >= experts_.size()) {
      return absl::InvalidArgumentError(
          absl::StrCat("its metadata's ", kExpertsKey, " names tensor '", Printable(index), "' of ", experts_.size()));
    }
    experts_[tensor] = true;
  }
  return absl::OkStatus();
}

absl::Status SpooledFile::ReadExpertPlaces(const std::string& text) {
  for (const absl::string_view entry : absl::StrSplit(text, ',', absl::SkipEmpty())) {
    const std::pair<absl::string_view, absl::string_view> parts = absl::StrSplit(entry, absl::MaxSplits(':', 1));
    const std::pair<absl::string_view, absl::string_view> place = absl::StrSplit(parts.second, absl::MaxSplits('/', 1));
    size_t tensor = 0;
    ExpertPlace expert;
    if (!absl::SimpleAtoi(parts.first, &tensor) || tensor >= experts_.size() ||
        !absl::SimpleAtoi(place.first, &expert.index) || !absl::SimpleAtoi(place.second, &expert.count) ||
        expert.index < 0 || expert.index >= expert.count) {
      return absl::InvalidArgumentError(
          absl::StrCat("its metadata's ", kExpertPlacesKey, " has '", Printable(entry), "'"));
    }
    expert_places_[tensor] = expert;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<Version>> SpooledFile::Load(bool stays_held) const {
  VersionPlan plan;
  std::vector<StoredTensor> stored;
  for (size_t i = 0; i < file_->tensors().size(); ++i) {
    const TensorSpec& spec = file_->tensors()[i];
    const absl::Span<const std::byte> bytes = file_->data(i);
    StoredTensor tensor{Buffer::Borrow(bytes, file_), DigestChunks(bytes, summary_.chunk_bytes())};
    const uint64_t digest = TensorDigest(bytes.empty() ? absl::Span<const uint64_t>() : tensor.chunk_digests);
    if (digest != digests_[i]) {
      return absl::DataLossError(absl::StrFormat("%s: tensor %s is damaged: its digest was %016x, its bytes give %016x",
                                                 file_->path(), spec.ToString(), digests_[i], digest));
    }
    PlannedOutput output{spec, Transform::kPass, experts_[i]};
    if (const auto place = expert_places_.find(i); place != expert_places_.end()) output.expert = place->second;
    plan.outputs.push_back({std::move(output), 0});
    stored.push_back(std::move(tensor));
  }
  VersionIdentity identity{summary_.model(), summary_.version(), summary_.adapter(), publisher_};
  identity.trainer_epoch = summary_.trainer_epoch();
  identity.hold_installs = stays_held && summary_.installs_held();
  return Version::Restore(std::move(identity), std::move(plan), summary_, std::move(stored));
}

}  // namespace refit
