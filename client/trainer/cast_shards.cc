#include "client/trainer/cast_shards.h"

#include <array>
#include <memory>
#include <optional>

#include "absl/status/statusor.h"
#include "common/adapters/adapter_registry.h"
#include "common/adapters/plan.h"
#include "common/tensor/float_environment.h"
#include "common/tensor/kernels.h"
#include "common/wire/digest.h"

namespace refit {
namespace {

// The type of all outputs that are made of the tensor's elements; its own if they differ, or if there are none.
DType OutputDType(const Adapter& adapter, const ConvertOptions& convert, const TensorSpec& native) {
  const absl::StatusOr<std::vector<PlannedOutput>> outputs = adapter.PlanTensor(native, convert);
  if (!outputs.ok()) return native.dtype;
  std::optional<DType> dtype;
  for (const PlannedOutput& output : *outputs) {
    if (output.transform == Transform::kOnes) continue;
    if (dtype.value_or(output.hf.dtype) != output.hf.dtype) return native.dtype;
    dtype = output.hf.dtype;
  }
  return dtype.value_or(native.dtype);
}

DType SentDType(const Adapter& adapter, const ConvertOptions& convert, const TensorSpec& native) {
  if (native.dtype == convert.dtype) return native.dtype;
  const DType output = OutputDType(adapter, convert, native);
  return CanConvert(native.dtype, output) && ElementSize(output) < ElementSize(native.dtype) ? output : native.dtype;
}

}  // namespace

uint64_t ShardCast::WriteAndDigest(absl::Span<const std::byte> native, std::byte* sent) const {
  const DefaultFloatEnvironment environment;
  const absl::Span<std::byte> target(sent, SentBytes(native.size()));
  return refit::WriteAndDigest(
      target, [&](uint64_t begin, absl::Span<std::byte> piece) { Convert(native.data() + NativeBytes(begin), piece); });
}

void ShardCast::ForEachSent(absl::Span<const std::byte> native,
                            absl::FunctionRef<void(absl::Span<const std::byte> sent)> take) const {
  if (!is_needed()) return take(native);
  const DefaultFloatEnvironment environment;
  std::array<std::byte, 16 << 10> sent;
  while (!native.empty()) {
    const auto piece = native.subspan(0, NativeBytes(sent.size()));
    const absl::Span<std::byte> target(sent.data(), SentBytes(piece.size()));
    Convert(piece.data(), target);
    take(target);
    native.remove_prefix(piece.size());
  }
}

void ShardCast::Convert(const std::byte* native, absl::Span<std::byte> sent) const {
  ConvertElements(native_, sent_, native, sent.data(), static_cast<int64_t>(sent.size() / ElementSize(sent_)));
}

std::vector<ShardCast> PlanCasts(const PublishOptions& options, absl::Span<const TensorPart> shards) {
  std::vector<TensorSpec> tensors;
  for (const TensorPart& shard : shards) tensors.push_back(shard.tensor);
  const absl::StatusOr<std::shared_ptr<const Adapter>> adapter =
      FindAdapter(options.adapter, options.adapter_options, tensors);
  const absl::StatusOr<ConvertOptions> convert = CompileOptions(options);
  const bool casts = options.dtype.has_value() && adapter.ok() && convert.ok();
  std::vector<ShardCast> plan;
  plan.reserve(shards.size());
  for (const TensorPart& shard : shards) {
    const DType native = shard.tensor.dtype;
    plan.emplace_back(native, casts ? SentDType(**adapter, *convert, shard.tensor) : native);
  }
  return plan;
}

}  // namespace refit
