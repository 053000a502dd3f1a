#include "server/push/version_builder.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/adapters/adapter_registry.h"
#include "common/adapters/native_range_writer.h"
#include "common/limits/within_memory.h"
#include "common/net/status.h"
#include "common/tensor/kernels.h"
#include "server/access/limit_reached.h"

namespace refit {
namespace {

// Extra state of a PyTorch module: "layers.0._extra_state", possibly with a number after it.
bool IsExtraState(absl::string_view name) {
  while (!name.empty() && absl::ascii_isdigit(name.back())) name.remove_suffix(1);
  return absl::ConsumeSuffix(&name, "_extra_state") && (name.empty() || name.back() == '.');
}

// Extra state is not a weight, and often not a tensor. If it is pushed, that is probably a mistake.
absl::Status CheckNoExtraState(const VersionPlan& plan) {
  for (size_t i = 0; i < plan.native.size(); ++i) {
    if (!IsExtraState(plan.native[i].name) || plan.outputs_of_native[i].empty()) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("tensor ", plan.native[i].ToString(),
                     ": a module's extra state is no weight; leave it out with exclude_key_regex ",
                     "(--exclude-key-regex) '.*_extra_state.*'"));
  }
  return absl::OkStatus();
}

// A pattern that matches nothing is probably a mistake. The tensors that it was meant for would be cast silently.
absl::Status CheckKeepsSome(const VersionPlan& plan, const ConvertOptions& options) {
  const auto is_kept = [&](const TensorSpec& native) { return options.KeepsDType(native.name); };
  if (options.keep_dtype == nullptr || std::any_of(plan.native.begin(), plan.native.end(), is_kept)) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "keep_dtype_regex '", Printable(options.keep_dtype->pattern()), "' matches none of the ", plan.native.size(),
      " tensors declared; it is matched from a native name's beginning, as with Python's re.match: perhaps '.*",
      Printable(options.keep_dtype->pattern()), "'"));
}

absl::StatusOr<VersionPlan> Plan(const Adapter& adapter, const PublishOptions& options, std::vector<TensorSpec> native,
                                 const Limits& limits) {
  const absl::StatusOr<ConvertOptions> convert = CompileOptions(options);
  if (!convert.ok()) return convert.status();
  absl::StatusOr<VersionPlan> plan =
      PlanVersion(adapter, std::move(native), *convert, {limits.max_name_bytes, limits.max_tensors_per_version});
  if (!plan.ok()) return plan;
  if (absl::Status status = CheckNoExtraState(*plan); !status.ok()) return status;
  if (absl::Status status = CheckKeepsSome(*plan, *convert); !status.ok()) return status;
  return plan;
}

// Workers would install nothing and report success.
absl::Status CheckNotEmpty(const VersionPlan& plan, const PublishOptions& options) {
  // Outputs that the adapter makes by itself, such as scales of ones, do not count as the trainer's.
  const auto has_bytes = [&](const VersionPlan::Output& output) {
    return plan.native[output.native_index].ByteSize() > 0;
  };
  if (options.allow_empty || std::any_of(plan.outputs.begin(), plan.outputs.end(), has_bytes)) return absl::OkStatus();
  const std::string excluded = absl::StrCat("exclude_key_regex '", Printable(options.exclude_key_regex), "'");
  std::string why;
  if (plan.native.empty()) {
    why = absl::StrCat("no tensors were declared", options.exclude_key_regex.empty() ? "" : " besides those of ",
                       options.exclude_key_regex.empty() ? "" : excluded);
  } else if (plan.outputs.empty()) {
    why = absl::StrCat(excluded, " leaves none of the ", plan.native.size(), " tensors declared");
  } else {
    why = absl::StrCat("all ", plan.native.size(), " tensors declared are empty, such as ",
                       plan.native[plan.outputs.front().native_index].ToString());
  }
  return absl::InvalidArgumentError(absl::StrCat("version ", Printable(options.model), "/", options.version,
                                                 " would hold nothing: ", why,
                                                 "; allow_empty (refit push --allow-empty) if that is meant"));
}

absl::Status CheckOptions(const PublishOptions& options, size_t tensors, const Limits& limits) {
  if (tensors > limits.max_tensors_per_version) {
    return LimitReached("--max-tensors", absl::StrCat("a version has at most ", limits.max_tensors_per_version,
                                                      " native tensors (--max-tensors), got ", tensors));
  }
  if (options.rank < options.world) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("rank ", options.rank, " of ", options.world, " ranks; expected a rank below that"));
}

constexpr char kOptionsDiffer[] =
    "dtype, adapter_options, exclude_key_regex or keep_dtype_regex differ from what other ranks asked for";

// Ranks declare a tensor in the type that they send, so other options also show in its type.
absl::Status DeclaredOtherwise(size_t index, const TensorSpec& own, const TensorSpec& others) {
  const std::string declared = absl::StrCat("native tensor number ", index, " was declared as ", own.ToString(),
                                            ", but other ranks declared ", others.ToString());
  if (own.name != others.name || own.shape != others.shape) return absl::InvalidArgumentError(declared);
  return absl::InvalidArgumentError(
      absl::StrCat(declared, ": the ranks hold different types, or ", kOptionsDiffer,
                   ", or the release of refit on some ranks is older, and does not cast before it sends"));
}

// Checks that the version that another rank opened is the one that this rank declares.
absl::Status CheckAgrees(const Version& version, const VersionIdentity& identity, const VersionPlan& plan) {
  const VersionPlan& opened = version.plan();
  if (version.identity().adapter != identity.adapter) {
    return absl::InvalidArgumentError(absl::StrCat("adapter '", Printable(identity.adapter),
                                                   "' was asked for, but other ranks asked for '",
                                                   Printable(version.identity().adapter), "'"));
  }
  if (plan.native.size() != opened.native.size()) {
    return absl::InvalidArgumentError(absl::StrCat(
        plan.native.size(), " native tensors were declared, but other ranks declared ", opened.native.size()));
  }
  for (size_t i = 0; i < plan.native.size(); ++i) {
    if (plan.native[i] == opened.native[i]) continue;
    return DeclaredOtherwise(i, plan.native[i], opened.native[i]);
  }
  const bool alike = std::equal(plan.outputs.begin(), plan.outputs.end(), opened.outputs.begin(), opened.outputs.end(),
                                [](const auto& a, const auto& b) { return a.planned.hf == b.planned.hf; });
  if (alike) return absl::OkStatus();
  return absl::InvalidArgumentError(kOptionsDiffer);
}

// How much of a shard one thread converts at a time: whole matrices, such as experts, or several whole rows of a larger
// matrix.
uint64_t PieceBytes(const TensorPart& shard) {
  constexpr uint64_t kLeastPiece = 4 << 20;
  constexpr uint64_t kLargestMatrix = 32 << 20;
  const auto bytes_of = [&](size_t dimensions) {
    uint64_t bytes = ElementSize(shard.tensor.dtype);
    const size_t rank = shard.box.sizes.size();
    for (size_t d = rank - std::min(rank, dimensions); d < rank; ++d)
      bytes *= static_cast<uint64_t>(shard.box.sizes[d]);
    return bytes;
  };
  const uint64_t unit = bytes_of(2) <= kLargestMatrix ? bytes_of(2) : bytes_of(1);
  return (kLeastPiece - 1) / unit * unit + unit;
}

}  // namespace

absl::StatusOr<std::unique_ptr<VersionBuilder>> VersionBuilder::Open(VersionStore& store, const PublishOptions& options,
                                                                     std::vector<TensorSpec> native,
                                                                     const Limits& limits) {
  return WithinMemory("a version", [&] { return Open(store, options, WholeParts(std::move(native)), limits); });
}

absl::StatusOr<std::unique_ptr<VersionBuilder>> VersionBuilder::Open(VersionStore& store, const PublishOptions& options,
                                                                     std::vector<TensorPart> shards,
                                                                     const Limits& limits) {
  if (absl::Status status = CheckOptions(options, shards.size(), limits); !status.ok()) return status;
  std::vector<TensorSpec> native;
  native.reserve(shards.size());
  for (const TensorPart& shard : shards) native.push_back(shard.tensor);
  absl::StatusOr<std::shared_ptr<const Adapter>> adapter =
      FindAdapter(options.adapter, options.adapter_options, native);
  if (!adapter.ok()) return absl::InvalidArgumentError(adapter.status().message());
  absl::StatusOr<VersionPlan> plan = Plan(**adapter, options, std::move(native), limits);
  if (!plan.ok()) return plan.status();
  if (absl::Status status = CheckNotEmpty(*plan, options); !status.ok()) return status;
  VersionIdentity identity{options.model, options.version, std::string((*adapter)->name()), options.publisher,
                           options.world};
  identity.hold_installs = options.hold_installs;
  identity.trainer_epoch = options.trainer_epoch;
  // If there are several ranks, each has a plan of its own to compare with that of the rank that opened the version.
  const std::optional<VersionPlan> own = options.world > 1 ? std::optional(*plan) : std::nullopt;
  absl::StatusOr<std::shared_ptr<Version>> version = store.Open(identity, options.rank, *std::move(plan));
  if (!version.ok()) return version.status();
  std::unique_ptr<VersionBuilder> builder =
      absl::WrapUnique(new VersionBuilder(store, *std::move(version), options.rank));
  absl::Status status = own.has_value() ? CheckAgrees(*builder->version_, identity, *own) : absl::OkStatus();
  if (status.ok()) status = builder->Join(std::move(shards));
  if (status.ok()) return builder;
  // A second stream of a rank that has already joined is no reason to abort.
  if (!absl::IsAlreadyExists(status)) store.Abort(*builder->version_, builder->AsRank(status.message()));
  return status;
}

VersionBuilder::VersionBuilder(VersionStore& store, std::shared_ptr<Version> version, uint32_t rank)
    : store_(store), version_(std::move(version)), rank_(rank) {}

VersionBuilder::~VersionBuilder() {
  if (guard_.forked()) KeepForGood(version_);
  Abort("its trainer went away before the commit");
}

absl::Status VersionBuilder::CheckNotForked() const {
  if (!guard_.forked()) return absl::OkStatus();  // called for every chunk: the message is made only for an error
  return guard_.Check(absl::StrCat("version ", version_->Label()));
}

absl::Status VersionBuilder::Join(std::vector<TensorPart> shards) {
  std::vector<Box> boxes;
  boxes.reserve(shards.size());
  for (const TensorPart& shard : shards) {
    if (absl::Status status = Validate(shard.box, shard.tensor.shape); !status.ok()) {
      return Annotate(status, absl::StrCat("tensor ", shard.tensor.ToString()));
    }
    boxes.push_back(shard.box);
  }
  shards_ = std::move(shards);
  received_.resize(shards_.size(), 0);
  const absl::StatusOr<bool> is_last = version_->Join(rank_, std::move(boxes));
  if (!is_last.ok()) return is_last.status();
  joined_ = true;
  return *is_last ? PublishWithoutData() : absl::OkStatus();
}

std::string VersionBuilder::AsRank(absl::string_view what) const {
  return version_->rank_shards().world() > 1 ? absl::StrCat("rank ", rank_, ": ", what) : std::string(what);
}

absl::Status VersionBuilder::PublishWithoutData() {
  for (size_t i = 0; i < version_->size(); ++i) {
    const TensorSpec& hf = version_->spec(i);
    const bool ones = version_->plan().outputs[i].planned.transform == Transform::kOnes;
    if (!ones && hf.ByteSize() != 0) continue;
    absl::StatusOr<std::shared_ptr<Buffer>> data = version_->DataFor(i);
    if (!data.ok()) return data.status();
    const auto count = static_cast<int64_t>(hf.ByteSize() / ElementSize(hf.dtype));
    if (ones) FillOnes(hf.dtype, (*data)->data(), count);
    ChunkCounts written = version_->NoChunks(i);
    if (count > 0) written.Add({0, 1, count, count});
    version_->Publish(i, written);
  }
  return absl::OkStatus();
}

bool VersionBuilder::is_digest_only(size_t index) const {
  if (!digest_only_.has_value()) {
    digest_only_.emplace(shards_.size(), false);
    for (const size_t tensor : version_->rank_shards().DigestOnly(rank_)) (*digest_only_)[tensor] = true;
  }
  return (*digest_only_)[index];
}

absl::Status VersionBuilder::CheckRange(size_t index, uint64_t offset, uint64_t size) const {
  if (index >= shards_.size()) {
    return absl::InvalidArgumentError(absl::StrCat("version ", version_->Label(), " has ", shards_.size(),
                                                   " declared tensors, got bytes for tensor number ", index));
  }
  const TensorPart& shard = shards_[index];
  const uint64_t total = shard.ByteSize();
  const uint64_t expected = received_[index];
  if (offset != expected) {
    return absl::OutOfRangeError(
        expected == total ? absl::StrCat("tensor ", shard.ToString(), ": all ", total,
                                         " bytes came already, got more at offset ", offset)
                          : absl::StrCat("tensor ", shard.ToString(), ": expected bytes from offset ", expected,
                                         ", got offset ", offset, offset > expected ? " (a gap)" : " (an overlap)"));
  }
  if (size > total - offset) {
    return absl::OutOfRangeError(absl::StrCat("tensor ", shard.ToString(), ": ", size, " bytes at offset ", offset,
                                              " end beyond its ", total, " bytes"));
  }
  if (const size_t element = ElementSize(shard.tensor.dtype); size % element != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor ", shard.ToString(), ": ", size, " bytes are no whole number of elements of ", element));
  }
  return absl::OkStatus();
}

absl::Status VersionBuilder::CheckComplete() const {
  if (version_->rank_shards().is_complete()) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat("version ", version_->Label(), ": bytes came before all ",
                                                    version_->rank_shards().world(),
                                                    " ranks have declared their shards"));
}

absl::Status VersionBuilder::Append(size_t index, uint64_t offset, absl::Span<const std::byte> bytes) {
  if (absl::Status status = CheckNotForked(); !status.ok()) return status;
  if (absl::Status status = CheckComplete(); !status.ok()) return status;
  if (absl::Status status = CheckRange(index, offset, bytes.size()); !status.ok()) return status;
  if (bytes.empty()) return absl::OkStatus();
  if (bytes.data() == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor ", shards_[index].ToString(), ": got ", bytes.size(), " bytes at a null address"));
  }
  if (!is_digest_only(index) && !is_unneeded(index)) {
    if (absl::Status status = Write(index, offset, bytes); !status.ok()) return status;
  }
  received_[index] += bytes.size();
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<Buffer>> VersionBuilder::DataFor(size_t output) {
  return version_->DataFor(output, /*within=*/version_->is_streamed());
}

absl::StatusOr<bool> VersionBuilder::HasRoom(size_t index) {
  if (absl::Status status = CheckNotForked(); !status.ok()) return status;
  if (!version_->is_streamed() || index >= shards_.size()) return true;
  if (absl::Status status = CheckComplete(); !status.ok()) return status;
  if (is_digest_only(index)) return true;
  if (received_[index] == shards_[index].ByteSize()) return true;
  const VersionPlan& plan = version_->plan();
  for (const size_t output : plan.outputs_of_native[index]) {
    const PlannedOutput& planned = plan.outputs[output].planned;
    if (planned.transform == Transform::kOnes || !Needs(planned, shards_[index])) continue;
    const absl::StatusOr<std::shared_ptr<Buffer>> data = DataFor(output);
    if (!data.ok()) return data.status();
    if (*data == nullptr) return false;
  }
  return true;
}

absl::Status VersionBuilder::Write(size_t index, uint64_t offset, absl::Span<const std::byte> bytes) {
  const uint64_t piece = PieceBytes(shards_[index]);
  if (helpers_ == nullptr || bytes.size() <= piece) return WritePiece(index, offset, bytes);
  absl::Mutex mutex;
  absl::Status first_error;
  ForEachTogether(*helpers_, (bytes.size() - 1) / piece + 1, [&](size_t i) {
    const absl::Status status = WritePiece(index, offset + i * piece, bytes.subspan(i * piece, piece));
    absl::MutexLock lock(&mutex);
    first_error.Update(status);
  });
  return first_error;
}

absl::Status VersionBuilder::WritePiece(size_t index, uint64_t offset, absl::Span<const std::byte> bytes) {
  return WithinMemory("a conversion", [&] { return ConvertPiece(index, offset, bytes); });
}

absl::Status VersionBuilder::ConvertPiece(size_t index, uint64_t offset, absl::Span<const std::byte> bytes) {
  const auto begin = std::chrono::steady_clock::now();
  const VersionPlan& plan = version_->plan();
  for (const size_t output : plan.outputs_of_native[index]) {
    const PlannedOutput& planned = plan.outputs[output].planned;
    if (planned.transform == Transform::kOnes || !Needs(planned, shards_[index], offset, bytes.size())) continue;
    absl::StatusOr<std::shared_ptr<Buffer>> data = DataFor(output);
    if (!data.ok()) return data.status();
    if (*data == nullptr) {
      return absl::UnavailableError(absl::StrCat("version ", version_->Label(), ": no memory for tensor ",
                                                 version_->spec(output).ToString(),
                                                 " until workers have taken what was pushed before"));
    }
    ChunkCounts written = version_->NoChunks(output);
    WriteNativeRange(shards_[index], planned, offset, bytes, (*data)->data(),
                     [&written](const StridedRuns& runs) { written.Add(runs); });
    version_->Publish(output, written);
  }
  version_->AddConverted(bytes.size(), begin);
  return absl::OkStatus();
}

absl::Status VersionBuilder::Finish(size_t index, uint64_t digest) {
  if (absl::Status status = CheckNotForked(); !status.ok()) return status;
  if (is_digest_only(index)) received_[index] = shards_[index].ByteSize();
  return version_->rank_shards().CheckDigest(rank_, index, digest);
}

absl::StatusOr<v1::VersionSummary> VersionBuilder::Commit() {
  if (absl::Status status = CheckNotForked(); !status.ok()) return status;
  size_t incomplete = 0;
  size_t first = shards_.size();
  for (size_t i = 0; i < shards_.size(); ++i) {
    if (received_[i] == shards_[i].ByteSize() || (received_[i] == 0 && is_unneeded(i))) continue;
    ++incomplete;
    first = std::min(first, i);
  }
  if (incomplete != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("version ", version_->Label(), " cannot be committed: ", incomplete, " of ", shards_.size(),
                     " tensors are incomplete, the first is tensor ", shards_[first].ToString(), " with ",
                     received_[first], " of ", shards_[first].ByteSize(), " bytes"));
  }
  if (version_->rank_shards().Commit(rank_)) {
    if (absl::Status status = store_.Commit(*version_); !status.ok()) return status;
  }
  return version_->Summary();
}

bool VersionBuilder::Abort(absl::string_view reason) {
  return !guard_.forked() && joined_ && store_.Abort(*version_, AsRank(reason));
}

}  // namespace refit
