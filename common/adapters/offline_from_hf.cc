#include "common/adapters/offline_from_hf.h"

#include <algorithm>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/adapters/from_hf_plan.h"
#include "common/adapters/hf_range_writer.h"
#include "common/safetensors/safetensors.h"
#include "common/tensor/kernels.h"

namespace refit {
namespace {

using Bytes = absl::Span<const std::byte>;

// Makes one native tensor after the other, in the same memory.
class NativeMaker {
 public:
  NativeMaker(const Checkpoint& in, const FromHfPlan& plan) : in_(in), plan_(plan) {}

  // Valid until the next call.
  absl::StatusOr<Bytes> Make(size_t index, const TensorSpec& target) {
    const TensorSpec& native = plan_.forward.native[index];
    const auto& outputs = plan_.forward.outputs_of_native[index];
    if (outputs.size() == 1 && IsSame(plan_.forward.outputs[outputs[0]].planned, native, target)) {
      return Read(plan_.hf[outputs[0]], read_);
    }
    made_.resize(target.ByteSize());
    std::map<Box, size_t> written;  // boxes, and the HF tensors that they came of
    for (const size_t output : outputs) {
      if (absl::Status status = Write(native, output, target.dtype, written); !status.ok()) return status;
    }
    return absl::MakeConstSpan(made_);
  }

 private:
  static bool IsSame(const PlannedOutput& output, const TensorSpec& native, const TensorSpec& target) {
    return output.transform == Transform::kPass && !output.box.has_value() && native.dtype == target.dtype;
  }

  absl::StatusOr<Bytes> Read(size_t hf, std::vector<std::byte>& memory) const {
    const TensorSpec& spec = in_.tensors()[hf];
    if (!in_.is_mapped()) memory.resize(spec.ByteSize());
    const Bytes bytes = in_.Read(hf, 0, spec.ByteSize(), absl::MakeSpan(memory));
    if (bytes.size() == spec.ByteSize()) return bytes;
    return absl::InvalidArgumentError(absl::StrCat("tensor ", spec.ToString(), ": its file was truncated"));
  }

  absl::Status Write(const TensorSpec& native, size_t output, DType dtype, std::map<Box, size_t>& written) {
    const PlannedOutput& planned = plan_.forward.outputs[output].planned;
    const size_t hf = plan_.hf[output];
    const absl::StatusOr<Bytes> bytes = Read(hf, read_);
    if (!bytes.ok()) return bytes.status();
    if (planned.transform == Transform::kOnes) return CheckOnes(native, hf, *bytes);
    const auto [same, is_new] = written.emplace(planned.box.value_or(WholeBox(native.shape)), hf);
    if (!is_new) return CheckEqual(native, same->second, hf, *bytes);
    WriteHfTensor(native, planned, *bytes, dtype, made_.data());
    return absl::OkStatus();
  }

  // The native tensor has no place for a scale.
  absl::Status CheckOnes(const TensorSpec& native, size_t hf, Bytes bytes) const {
    const TensorSpec& spec = in_.tensors()[hf];
    std::vector<std::byte> ones(bytes.size());
    FillOnes(spec.dtype, ones.data(), ElementCount(WholeBox(spec.shape)));
    if (std::equal(bytes.begin(), bytes.end(), ones.begin(), ones.end())) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat("tensor ", spec.ToString(), ": expected ones only, as ",
                                                   native.ToString(), " has no place for other values"));
  }

  // What several HF tensors have a copy of.
  absl::Status CheckEqual(const TensorSpec& native, size_t first, size_t second, Bytes bytes) {
    const absl::StatusOr<Bytes> other = Read(first, compared_);
    if (!other.ok()) return other.status();
    if (std::equal(bytes.begin(), bytes.end(), other->begin(), other->end())) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat("tensors ", in_.tensors()[first].ToString(), " and ",
                                                   in_.tensors()[second].ToString(), " differ, but are one in ",
                                                   native.ToString()));
  }

  const Checkpoint& in_;
  const FromHfPlan& plan_;
  std::vector<std::byte> read_;
  std::vector<std::byte> compared_;
  std::vector<std::byte> made_;
};

absl::StatusOr<ConvertedFile> WriteFile(const std::string& out, const Checkpoint& in, const FromHfPlan& plan) {
  ConvertedFile converted;
  std::vector<TensorSpec> specs = plan.forward.native;
  for (size_t i = 0; i < specs.size(); ++i) {
    specs[i].dtype = plan.dtypes[i];
    converted.bytes += specs[i].ByteSize();
  }
  converted.tensors = specs.size();
  absl::StatusOr<std::unique_ptr<SafetensorsWriter>> writer =
      SafetensorsWriter::Create(out, specs, {{"format", "pt"}}, 0666, SafetensorsWriter::Layout::kAsGiven);
  if (!writer.ok()) return writer.status();
  NativeMaker maker(in, plan);
  for (size_t i = 0; i < specs.size(); ++i) {
    const absl::StatusOr<Bytes> made = maker.Make(i, specs[i]);
    if (!made.ok()) return made.status();
    if (absl::Status status = (*writer)->WriteAt(i, 0, *made); !status.ok()) return status;
  }
  if (absl::Status status = (*writer)->Commit(); !status.ok()) return status;
  converted.warning = (*writer)->warning();
  return converted;
}

std::string NoteOf(const Checkpoint& in, const FromHfPlan& plan, absl::string_view adapter) {
  std::vector<std::string> notes;
  if (!in.note().empty()) notes.push_back(in.note());
  if (plan.counted_experts.has_value()) {
    notes.push_back(absl::StrCat("names tell of ", *plan.counted_experts, " experts; --experts N checks it"));
  }
  if (plan.changes_nothing && adapter != "identity") {
    notes.push_back(absl::StrCat("adapter ", adapter, " changes none of these tensors"));
  }
  return absl::StrJoin(notes, "; ");
}

}  // namespace

absl::StatusOr<ConvertedFile> ConvertFileFromHf(const OfflineConvertOptions& options, const std::string& in,
                                                const std::string& out) {
  if (!options.exclude_key_regex.empty()) return absl::InvalidArgumentError("from_hf takes no exclude_key_regex");
  if (options.mesh.ep_size > 1 || options.mesh.ep_shard_size > 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("adapter ", Printable(options.adapter), " makes whole native tensors, not a rank's part"));
  }
  const absl::StatusOr<std::shared_ptr<const Checkpoint>> checkpoint = Checkpoint::Open(in);
  if (!checkpoint.ok()) return checkpoint.status();
  const absl::StatusOr<FromHfPlan> plan =
      PlanFromHf(options.adapter, options.adapter_options, (*checkpoint)->tensors(), options.dtype);
  if (!plan.ok()) return plan.status();
  absl::StatusOr<ConvertedFile> converted = WriteFile(out, **checkpoint, *plan);
  if (!converted.ok()) return converted;
  converted->note = NoteOf(**checkpoint, *plan, options.adapter);
  return converted;
}

}  // namespace refit
