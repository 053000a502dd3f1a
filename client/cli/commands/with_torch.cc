// The parts of `refit-torch` that use LibTorch.
#include <utility>

#include "client/cli/commands/torch_work.h"

namespace refit::cli {

absl::Status ContinueWithTorch() { return absl::OkStatus(); }

absl::StatusOr<std::unique_ptr<Verifier>> MakeVerifier(Expectation&& expected) {
  return Verifier::Create(std::move(expected));
}

absl::StatusOr<ConvertedFile> ConvertOffline(const OfflineConvertOptions& options, const std::string& in,
                                             const std::string& out) {
  return ConvertFile(options, in, out);
}

}  // namespace refit::cli
