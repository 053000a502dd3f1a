#include "client/cli/verify.h"

namespace refit::cli {

absl::StatusOr<std::unique_ptr<Verifier>> Verifier::Create(std::shared_ptr<const NativeSource> /*source*/,
                                                           std::optional<DType> /*dtype*/,
                                                           const std::string& /*exclude_key_regex*/) {
  return absl::UnimplementedError("--verify needs LibTorch, which this build lacks (REFIT_WITH_TORCH=OFF)");
}

}  // namespace refit::cli
