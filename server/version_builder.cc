#include "server/version_builder.h"

#include <algorithm>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "common/adapters/native_range_writer.h"
#include "common/tensor/kernels.h"

namespace refit {

absl::StatusOr<std::unique_ptr<VersionBuilder>> VersionBuilder::Open(VersionStore& store, const BuildOptions& options,
                                                                     std::vector<TensorSpec> native) {
  if (native.size() > options.max_tensors) {
    return absl::ResourceExhaustedError(
        absl::StrCat("a version has at most ", options.max_tensors, " native tensors, got ", native.size()));
  }
  absl::StatusOr<std::shared_ptr<const Adapter>> adapter = FindAdapter(options.adapter);
  if (!adapter.ok()) return absl::InvalidArgumentError(adapter.status().message());
  ConvertOptions convert;
  convert.dtype = options.dtype;
  if (!options.exclude_key_regex.empty()) {
    absl::StatusOr<std::shared_ptr<const PythonRegex>> exclude = PythonRegex::Compile(options.exclude_key_regex);
    if (!exclude.ok()) return exclude.status();
    convert.exclude = *std::move(exclude);
  }
  absl::StatusOr<VersionPlan> plan = PlanVersion(**adapter, std::move(native), convert, options.max_name_bytes);
  if (!plan.ok()) return plan.status();
  VersionIdentity identity{options.model, options.version, std::string((*adapter)->name()), options.publisher};
  absl::StatusOr<std::shared_ptr<Version>> version = store.Open(std::move(identity), *std::move(plan));
  if (!version.ok()) return version.status();
  std::unique_ptr<VersionBuilder> builder = absl::WrapUnique(new VersionBuilder(store, *std::move(version)));
  if (absl::Status status = builder->PublishWithoutData(); !status.ok()) {
    builder->Abort(std::string(status.message()));
    return status;
  }
  return builder;
}

VersionBuilder::VersionBuilder(VersionStore& store, std::shared_ptr<Version> version)
    : store_(store), version_(std::move(version)), received_(native().size(), 0) {
  for (size_t i = 0; i < native().size(); ++i) index_of_.emplace(native()[i].name, i);
}

VersionBuilder::~VersionBuilder() { Abort("its trainer went away before the commit"); }

absl::Status VersionBuilder::PublishWithoutData() {
  for (size_t i = 0; i < version_->size(); ++i) {
    const TensorSpec& hf = version_->spec(i);
    const bool ones = version_->plan().outputs[i].planned.transform == Transform::kOnes;
    if (!ones && hf.ByteSize() != 0) continue;
    absl::StatusOr<std::shared_ptr<Buffer>> data = version_->DataFor(i);
    if (!data.ok()) return data.status();
    if (ones) FillOnes(hf.dtype, (*data)->data(), static_cast<int64_t>(hf.ByteSize() / ElementSize(hf.dtype)));
    version_->Publish(i, hf.ByteSize());
  }
  return absl::OkStatus();
}

absl::StatusOr<size_t> VersionBuilder::IndexOf(absl::string_view name) const {
  const auto it = index_of_.find(std::string(name));
  if (it != index_of_.end()) return it->second;
  return absl::NotFoundError(
      absl::StrCat("version ", version_->Label(), " has no declared native tensor named '", Printable(name), "'"));
}

absl::Status VersionBuilder::CheckRange(size_t index, uint64_t offset, uint64_t size) const {
  if (index >= native().size()) {
    return absl::InvalidArgumentError(absl::StrCat("version ", version_->Label(), " has ", native().size(),
                                                   " declared tensors, got bytes for tensor number ", index));
  }
  const TensorSpec& spec = native()[index];
  const uint64_t total = spec.ByteSize();
  const uint64_t expected = received_[index];
  if (offset != expected) {
    return absl::OutOfRangeError(
        expected == total ? absl::StrCat("tensor ", spec.ToString(), ": all ", total,
                                         " bytes came already, got more at offset ", offset)
                          : absl::StrCat("tensor ", spec.ToString(), ": expected bytes from offset ", expected,
                                         ", got offset ", offset, offset > expected ? " (a gap)" : " (an overlap)"));
  }
  if (size > total - offset) {
    return absl::OutOfRangeError(absl::StrCat("tensor ", spec.ToString(), ": ", size, " bytes at offset ", offset,
                                              " end beyond its ", total, " bytes"));
  }
  if (size % ElementSize(spec.dtype) != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "tensor ", spec.ToString(), ": ", size, " bytes are no whole number of elements of ", ElementSize(spec.dtype)));
  }
  return absl::OkStatus();
}

absl::Status VersionBuilder::Append(size_t index, uint64_t offset, absl::Span<const std::byte> bytes) {
  if (absl::Status status = CheckRange(index, offset, bytes.size()); !status.ok()) return status;
  if (bytes.empty()) return absl::OkStatus();
  const TensorSpec& spec = native()[index];
  const VersionPlan& plan = version_->plan();
  for (const size_t output : plan.outputs_of_native[index]) {
    const PlannedOutput& planned = plan.outputs[output].planned;
    if (planned.transform == Transform::kOnes) continue;
    absl::StatusOr<std::shared_ptr<Buffer>> data = version_->DataFor(output);
    if (!data.ok()) return data.status();
    WriteNativeRange(spec, planned, offset, bytes, (*data)->data());
    version_->Publish(output, ConvertedPrefix(spec, planned, offset + bytes.size()));
  }
  received_[index] += bytes.size();
  version_->AddReceived(bytes.size());
  return absl::OkStatus();
}

absl::StatusOr<v1::VersionSummary> VersionBuilder::Commit() {
  size_t incomplete = 0;
  size_t first = native().size();
  for (size_t i = 0; i < native().size(); ++i) {
    if (received_[i] == native()[i].ByteSize()) continue;
    ++incomplete;
    first = std::min(first, i);
  }
  if (incomplete != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("version ", version_->Label(), " cannot be committed: ", incomplete, " of ", native().size(),
                     " tensors are incomplete, the first is ", native()[first].ToString(), " with ", received_[first],
                     " of ", native()[first].ByteSize(), " bytes"));
  }
  if (absl::Status status = store_.Commit(*version_); !status.ok()) return status;
  return version_->Summary();
}

void VersionBuilder::Abort(std::string reason) { store_.Abort(*version_, std::move(reason)); }

}  // namespace refit
