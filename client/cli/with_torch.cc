// `refit-torch`: does the work.
#include <utility>

#include "client/cli/torch_work.h"

namespace refit::cli {

absl::Status ContinueWithTorch() { return absl::OkStatus(); }

absl::StatusOr<std::unique_ptr<Verifier>> MakeVerifier(std::shared_ptr<const NativeSource> source,
                                                       std::optional<DType> dtype,
                                                       const std::string& exclude_key_regex) {
  return Verifier::Create(std::move(source), dtype, exclude_key_regex);
}

absl::Status ConvertOffline(const OfflineConvertOptions& options, const std::string& in, const std::string& out) {
  return ConvertFile(options, in, out);
}

}  // namespace refit::cli
