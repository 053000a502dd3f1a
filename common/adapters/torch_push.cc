#include <memory>

#include "absl/strings/str_cat.h"
#include "refit/torch/push.h"

namespace refit {
namespace {

struct HostTensor {
  TypedTensor tensor;
  absl::Span<const std::byte> bytes;  // of it
};

absl::StatusOr<HostTensor> ToHost(const TypedTensor& tensor) {
  absl::StatusOr<TypedTensor> host = OnHost(tensor);
  if (!host.ok()) return host.status();
  const absl::StatusOr<absl::Span<const std::byte>> bytes = BytesOf(*host);
  if (!bytes.ok()) return bytes.status();
  return HostTensor{*std::move(host), *bytes};
}

absl::Status PushAll(VersionPush& push, const NamedTensors& tensors) {
  for (const auto& [name, tensor] : tensors) {
    if (absl::Status status = PushTensor(push, name, tensor); !status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<TensorSpec>> SpecsOf(const NamedTensors& tensors) {
  std::vector<TensorSpec> specs;
  specs.reserve(tensors.size());
  for (const auto& [name, tensor] : tensors) {
    absl::StatusOr<TensorSpec> spec = SpecOf(name, tensor);
    if (!spec.ok()) return spec.status();
    specs.push_back(*std::move(spec));
  }
  return specs;
}

absl::Status PushTensor(VersionPush& push, absl::string_view name, const TypedTensor& tensor) {
  const absl::StatusOr<TensorSpec> spec = SpecOf(name, tensor);
  if (!spec.ok()) return spec.status();
  const absl::StatusOr<size_t> index = push.IndexOf(name);
  if (!index.ok()) return index.status();
  const TensorPart& declared = push.shards()[*index];
  if (declared.spec() != *spec) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor ", spec->ToString(), " was declared as ", declared.ToString()));
  }
  const absl::StatusOr<HostTensor> host = ToHost(tensor);
  if (!host.ok()) {
    return absl::Status(host.status().code(), absl::StrCat("tensor ", spec->ToString(), ": ", host.status().message()));
  }
  return push.Append(*index, host->bytes, std::make_shared<const at::Tensor>(host->tensor.data));
}

absl::StatusOr<VersionSummary> PushStateDict(VersionPush& push, const NamedTensors& tensors) {
  if (absl::Status status = PushAll(push, tensors); !status.ok()) {
    push.Abort(status.message()).IgnoreError();  // its end aborts the version as well, only without the reason
    return status;
  }
  return push.Commit();
}

}  // namespace refit
