#include "common/adapters/offline_convert.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "common/adapters/gemma4_moe_state_dict_adapter.h"
#include "common/adapters/offline_from_hf.h"
#include "common/adapters/offline_to_hf.h"
#include "common/safetensors/safetensors.h"
#include "refit/buffer.h"
#include "refit/torch/tensor.h"

namespace refit {
namespace {

using CheckpointPtr = std::shared_ptr<const Checkpoint>;

absl::StatusOr<TypedTensor> Load(const CheckpointPtr& in, size_t index) {
  const TensorSpec& spec = in->tensors()[index];
  if (in->is_mapped()) return TensorOnBytes(spec, in->data(index), in);
  absl::StatusOr<std::shared_ptr<Buffer>> memory = Buffer::Allocate(std::max<uint64_t>(spec.ByteSize(), 1));
  if (!memory.ok()) return memory.status();
  return TensorOnBytes(spec, in->Read(index, 0, spec.ByteSize(), (*memory)->span()), *memory);
}

absl::Status Write(SafetensorsWriter& writer, size_t index, const TypedTensor& tensor) {
  absl::StatusOr<TypedTensor> host = OnHost(tensor);
  if (!host.ok()) return host.status();
  absl::StatusOr<absl::Span<const std::byte>> bytes = BytesOf(*host);
  if (!bytes.ok()) return bytes.status();
  return writer.WriteAt(index, 0, *bytes);
}

// Writes the tensors that `make` returns, one after the other. The file gets its name once all are written.
absl::StatusOr<ConvertedFile> WriteFile(const std::string& out, std::vector<TensorSpec> specs,
                                        absl::FunctionRef<absl::StatusOr<TypedTensor>(size_t)> make) {
  ConvertedFile converted;
  converted.tensors = specs.size();
  for (const TensorSpec& spec : specs) converted.bytes += spec.ByteSize();
  absl::StatusOr<std::unique_ptr<SafetensorsWriter>> writer =
      SafetensorsWriter::Create(out, std::move(specs), {{"format", "pt"}});
  if (!writer.ok()) return writer.status();
  for (size_t i = 0; i < converted.tensors; ++i) {
    absl::StatusOr<TypedTensor> tensor = make(i);
    if (!tensor.ok()) return tensor.status();
    if (absl::Status status = Write(**writer, i, *tensor); !status.ok()) return status;
  }
  if (absl::Status status = (*writer)->Commit(); !status.ok()) return status;
  converted.warning = (*writer)->warning();
  return converted;
}

absl::StatusOr<ConvertedFile> ConvertToNative(const OfflineConvertOptions& options, const CheckpointPtr& in,
                                              const std::string& out) {
  if (!options.exclude_key_regex.empty()) {
    return absl::InvalidArgumentError("from_hf takes no exclude_key_regex");
  }
  absl::StatusOr<std::vector<NativeOutput>> plan =
      PlanGemma4MoeFromHf(options.config, options.dtype.value_or(kGemma4MoeDType), in->tensors(), options.mesh);
  if (!plan.ok()) return plan.status();
  std::vector<TensorSpec> specs;
  for (const NativeOutput& output : *plan) specs.push_back(output.native);
  return WriteFile(out, std::move(specs), [&](size_t index) -> absl::StatusOr<TypedTensor> {
    const NativeOutput& output = (*plan)[index];
    absl::StatusOr<TypedTensor> source = Load(in, output.source);
    if (!source.ok()) return source;
    absl::StatusOr<TypedTensor> scale = Load(in, output.scale);
    if (!scale.ok()) return scale;
    return MakeNativeTensor(output, *source, *scale);
  });
}

}  // namespace

absl::StatusOr<ConvertedFile> ConvertFile(const OfflineConvertOptions& options, const std::string& in,
                                          const std::string& out) {
  if (options.mode != OfflineConvertOptions::Mode::kNative) return ConvertFileToHf(options, in, out);
  if (options.adapter != "gemma4_moe") return ConvertFileFromHf(options, in, out);
  absl::StatusOr<CheckpointPtr> checkpoint = Checkpoint::Open(in);
  if (!checkpoint.ok()) return checkpoint.status();
  absl::StatusOr<ConvertedFile> converted = ConvertToNative(options, *checkpoint, out);
  if (converted.ok()) converted->note = (*checkpoint)->note();
  return converted;
}

}  // namespace refit
