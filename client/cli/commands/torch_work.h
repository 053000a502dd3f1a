// Commands that need LibTorch. Loading LibTorch takes most of a second, which `refit status` should not pay. So there
// is a second program, `refit-torch`: the same command line, linked with LibTorch. `refit` replaces itself by it where
// needed.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/cli/commands/verify.h"
#include "common/adapters/offline_convert.h"

namespace refit::cli {

// Replaces `refit` by `refit-torch`, with the same arguments. Call it first in a command that needs LibTorch, before it
// starts threads. In `refit-torch` it does nothing. UNIMPLEMENTED in a build without LibTorch.
absl::Status ContinueWithTorch();

// As Verifier::Create. Call it after ContinueWithTorch.
absl::StatusOr<std::unique_ptr<Verifier>> MakeVerifier(Expectation&& expected);

// As ConvertFile. Call it after ContinueWithTorch.
absl::StatusOr<ConvertedFile> ConvertOffline(const OfflineConvertOptions& options, const std::string& in,
                                             const std::string& out);

}  // namespace refit::cli
