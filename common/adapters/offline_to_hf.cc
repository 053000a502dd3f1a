#include "common/adapters/offline_to_hf.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/adapters/adapter_registry.h"
#include "common/adapters/native_range_writer.h"
#include "common/adapters/recognise_family.h"
#include "common/safetensors/safetensors.h"
#include "common/tensor/kernels.h"

namespace refit {
namespace {

struct Planned {
  VersionPlan plan;
  std::string note;
};

absl::StatusOr<Planned> PlanPerTensor(const OfflineConvertOptions& options, const std::vector<TensorSpec>& native,
                                      std::shared_ptr<const PythonRegex> exclude) {
  Planned planned;
  std::string name = options.adapter;
  if (name == kAutoAdapter) {
    absl::StatusOr<RecognisedFamily> recognised = RecogniseFamily(native);
    if (!recognised.ok()) return recognised.status();
    planned.note = absl::StrCat("adapter ", recognised->name, ": ", recognised->why);
    name = std::move(recognised->name);
  }
  const absl::StatusOr<std::shared_ptr<const Adapter>> adapter = FindAdapter(name, options.adapter_options);
  if (!adapter.ok()) return adapter.status();
  ConvertOptions convert;
  convert.dtype = options.cast;
  convert.exclude = std::move(exclude);
  absl::StatusOr<VersionPlan> plan = PlanVersion(**adapter, native, convert);
  if (!plan.ok()) return plan.status();
  planned.plan = *std::move(plan);
  const std::vector<std::string> misses = NearMisses(name, planned.plan);
  if (!misses.empty()) absl::StrAppend(&planned.note, planned.note.empty() ? "" : "; ", absl::StrJoin(misses, "; "));
  return planned;
}

absl::StatusOr<Planned> PlanToHf(const OfflineConvertOptions& options, const std::vector<TensorSpec>& native) {
  absl::StatusOr<std::shared_ptr<const PythonRegex>> exclude = PythonRegex::Compile(options.exclude_key_regex);
  if (!exclude.ok()) return exclude.status();
  if (options.mode == OfflineConvertOptions::Mode::kPerTensor) {
    return PlanPerTensor(options, native, *std::move(exclude));
  }
  absl::StatusOr<VersionPlan> plan =
      PlanGemma4MoeToHf(options.config, options.dtype.value_or(kGemma4MoeDType), native, exclude->get());
  if (!plan.ok()) return plan.status();
  return Planned{*std::move(plan), ""};
}

// The bytes of a native tensor that an output is made of: from the first to the last of its box.
struct ByteRange {
  uint64_t begin = 0;
  uint64_t size = 0;
};

ByteRange BytesOf(const TensorSpec& native, const PlannedOutput& output) {
  const Box box = output.box.value_or(WholeBox(native.shape));
  if (output.transform == Transform::kOnes || ElementCount(box) == 0) return {};
  int64_t first = 0;
  int64_t last = 0;
  for (size_t d = 0; d < native.shape.size(); ++d) {
    first = first * native.shape[d] + box.offsets[d];
    last = last * native.shape[d] + box.offsets[d] + box.sizes[d] - 1;
  }
  const uint64_t size = ElementSize(native.dtype);
  return {static_cast<uint64_t>(first) * size, static_cast<uint64_t>(last - first + 1) * size};
}

// Makes one output after the other, in the same memory.
class OutputMaker {
 public:
  OutputMaker(const Checkpoint& in, const VersionPlan& plan) : in_(in), plan_(plan) {}

  // Valid until the next call.
  absl::StatusOr<absl::Span<const std::byte>> Make(const VersionPlan::Output& output) {
    const TensorSpec& native = plan_.native[output.native_index];
    const PlannedOutput& planned = output.planned;
    made_.resize(planned.hf.ByteSize());
    if (planned.transform == Transform::kOnes) {
      FillOnes(planned.hf.dtype, made_.data(), static_cast<int64_t>(made_.size() / ElementSize(planned.hf.dtype)));
      return absl::MakeConstSpan(made_);
    }
    const ByteRange range = BytesOf(native, planned);
    const absl::Span<const std::byte> bytes = Read(output.native_index, range);
    if (bytes.size() != range.size) {
      return absl::InvalidArgumentError(absl::StrCat("tensor ", native.ToString(), ": its file was truncated"));
    }
    if (planned.transform == Transform::kPass && planned.hf.dtype == native.dtype && range.size == made_.size()) {
      return bytes;
    }
    WriteNativeRange(TensorPart::Whole(native), planned, range.begin, bytes, made_.data());
    return absl::MakeConstSpan(made_);
  }

 private:
  absl::Span<const std::byte> Read(size_t index, const ByteRange& range) {
    if (!in_.is_mapped()) read_.resize(range.size);
    return in_.Read(index, range.begin, range.size, absl::MakeSpan(read_));
  }

  const Checkpoint& in_;
  const VersionPlan& plan_;
  std::vector<std::byte> read_;
  std::vector<std::byte> made_;
};

absl::StatusOr<ConvertedFile> WriteFile(const std::string& out, const Checkpoint& in, const VersionPlan& plan) {
  ConvertedFile converted;
  std::vector<TensorSpec> specs;
  for (const VersionPlan::Output& output : plan.outputs) {
    specs.push_back(output.planned.hf);
    converted.bytes += output.planned.hf.ByteSize();
  }
  converted.tensors = specs.size();
  absl::StatusOr<std::unique_ptr<SafetensorsWriter>> writer =
      SafetensorsWriter::Create(out, std::move(specs), {{"format", "pt"}}, 0666, SafetensorsWriter::Layout::kAsGiven);
  if (!writer.ok()) return writer.status();
  OutputMaker maker(in, plan);
  for (size_t i = 0; i < plan.outputs.size(); ++i) {
    const absl::StatusOr<absl::Span<const std::byte>> made = maker.Make(plan.outputs[i]);
    if (!made.ok()) return made.status();
    if (absl::Status status = (*writer)->WriteAt(i, 0, *made); !status.ok()) return status;
  }
  if (absl::Status status = (*writer)->Commit(); !status.ok()) return status;
  converted.warning = (*writer)->warning();
  return converted;
}

}  // namespace

absl::StatusOr<ConvertedFile> ConvertFileToHf(const OfflineConvertOptions& options, const std::string& in,
                                              const std::string& out) {
  if (options.mode != OfflineConvertOptions::Mode::kPerTensor && options.adapter != "gemma4_moe") {
    return absl::InvalidArgumentError(
        absl::StrCat("adapter ", Printable(options.adapter), " converts tensor by tensor only"));
  }
  absl::StatusOr<NameFilter> excluded = PythonRegex::Matcher(options.exclude_key_regex);
  if (!excluded.ok()) return excluded.status();
  CheckpointOptions reading;
  reading.excluded = *std::move(excluded);
  absl::StatusOr<std::shared_ptr<const Checkpoint>> checkpoint = Checkpoint::Open(in, reading);
  if (!checkpoint.ok()) return checkpoint.status();
  const absl::StatusOr<Planned> planned = PlanToHf(options, (*checkpoint)->tensors());
  if (!planned.ok()) return planned.status();
  absl::StatusOr<ConvertedFile> converted = WriteFile(out, **checkpoint, planned->plan);
  if (!converted.ok()) return converted;
  converted->note = (*checkpoint)->note();
  if (!planned->note.empty()) absl::StrAppend(&converted->note, converted->note.empty() ? "" : "; ", planned->note);
  return converted;
}

}  // namespace refit
