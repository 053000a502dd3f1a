#include "refit/torch/server.h"

#include "absl/strings/str_cat.h"
#include "common/net/status.h"
#include "refit/torch/tensor.h"

namespace refit {

absl::Status PublishTensor(VersionBuilder& builder, const std::string& name, const at::Tensor& tensor) {
  absl::StatusOr<size_t> index = builder.IndexOf(name);
  if (!index.ok()) return index.status();
  absl::StatusOr<TensorSpec> spec = SpecOf(name, tensor);
  if (!spec.ok()) return spec.status();
  const TensorSpec& declared = builder.shards()[*index].tensor;
  if (*spec != declared) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor ", declared.ToString(), " was declared, got ", spec->ToString()));
  }
  absl::StatusOr<TypedTensor> host = OnHost(tensor);
  if (!host.ok()) return Annotate(host.status(), absl::StrCat("tensor ", spec->ToString()));
  absl::StatusOr<absl::Span<const std::byte>> bytes = BytesOf(*host);
  if (!bytes.ok()) return Annotate(bytes.status(), absl::StrCat("tensor ", spec->ToString()));
  return builder.Append(*index, 0, *bytes);
}

absl::StatusOr<v1::VersionSummary> PublishStateDict(RefitServer& server, const BuildOptions& options,
                                                    const std::vector<std::pair<std::string, at::Tensor>>& tensors) {
  std::vector<TensorSpec> native;
  for (const auto& [name, tensor] : tensors) {
    absl::StatusOr<TensorSpec> spec = SpecOf(name, tensor);
    if (!spec.ok()) return spec.status();
    native.push_back(*std::move(spec));
  }
  absl::StatusOr<std::unique_ptr<VersionBuilder>> builder = server.OpenVersion(options, std::move(native));
  if (!builder.ok()) return builder.status();
  for (const auto& [name, tensor] : tensors) {
    if (absl::Status status = PublishTensor(**builder, name, tensor); !status.ok()) return status;
  }
  return (*builder)->Commit();
}

}  // namespace refit
