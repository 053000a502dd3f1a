#include "refit/torch/client.h"

#include <algorithm>
#include <memory>

#include "absl/strings/str_cat.h"
#include "common/net/status.h"

namespace refit {
namespace {

absl::Status CheckDeclared(const VersionPush& push, const TensorSpec& spec) {
  const auto& shards = push.shards();
  const auto declared = std::find_if(shards.begin(), shards.end(),
                                     [&](const TensorPart& shard) { return shard.tensor.name == spec.name; });
  if (declared == shards.end()) {
    return absl::NotFoundError(absl::StrCat("tensor ", Printable(spec.name), " was not declared"));
  }
  if (declared->spec() == spec) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("tensor ", spec.ToString(), " was declared as ", declared->ToString()));
}

absl::Status PushAll(VersionPush& push, const NamedTensors& tensors) {
  for (const auto& [name, tensor] : tensors) {
    if (absl::Status status = PushTensor(push, name, tensor); !status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status PushTensor(VersionPush& push, absl::string_view name, const TypedTensor& tensor) {
  const absl::StatusOr<TensorSpec> spec = SpecOf(name, tensor);
  if (!spec.ok()) return spec.status();
  if (absl::Status status = CheckDeclared(push, *spec); !status.ok()) return status;
  const absl::StatusOr<TypedTensor> host = OnHost(tensor);
  if (!host.ok()) return Annotate(host.status(), absl::StrCat("tensor ", spec->ToString()));
  const absl::StatusOr<absl::Span<const std::byte>> bytes = BytesOf(*host);
  if (!bytes.ok()) return Annotate(bytes.status(), absl::StrCat("tensor ", spec->ToString()));
  return push.Push(name, *bytes, std::make_shared<const at::Tensor>(host->data));
}

absl::StatusOr<v1::VersionSummary> PublishStateDict(Publisher& publisher, const PublishOptions& options,
                                                    const NamedTensors& tensors) {
  std::vector<TensorSpec> native;
  native.reserve(tensors.size());
  for (const auto& [name, tensor] : tensors) {
    absl::StatusOr<TensorSpec> spec = SpecOf(name, tensor);
    if (!spec.ok()) return spec.status();
    native.push_back(*std::move(spec));
  }
  const absl::StatusOr<std::unique_ptr<VersionPush>> push = publisher.Open(options, std::move(native));
  if (!push.ok()) return push.status();
  if (absl::Status status = PushAll(**push, tensors); !status.ok()) {
    (*push)->Abort(status.message()).IgnoreError();  // an end of the stream aborts as well, only without the reason
    return status;
  }
  return (*push)->Commit();
}

absl::StatusOr<PulledTensors> PullTensors(Subscriber& subscriber, const PullOptions& options) {
  absl::StatusOr<PulledVersion> version = subscriber.Pull(options);
  if (!version.ok()) return version.status();
  PulledTensors pulled;
  pulled.result = std::move(version->result);
  pulled.tensors.reserve(version->tensors.size());
  for (PulledTensor& tensor : version->tensors) {
    absl::StatusOr<TypedTensor> typed = TensorOnBytes(tensor.part.spec(), tensor.data->span(), tensor.data);
    if (!typed.ok()) return typed.status();
    pulled.tensors.emplace_back(std::move(tensor.part.tensor.name), std::move(typed->data));
  }
  return pulled;
}

}  // namespace refit
