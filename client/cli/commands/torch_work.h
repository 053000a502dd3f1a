// What only LibTorch can do. Loading it takes most of a second, which no `refit status` should wait for; so a second
// program beside `refit`, `refit-torch`, is the same command line with LibTorch, and `refit` continues as it where
// needed.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/cli/commands/verify.h"
#include "common/adapters/offline_convert.h"

namespace refit::cli {

// Call first in a command that needs LibTorch, before it starts threads: `refit` becomes `refit-torch`, with the same
// arguments; that one goes on. UNIMPLEMENTED in a build without LibTorch.
absl::Status ContinueWithTorch();

// As Verifier::Create. After ContinueWithTorch.
absl::StatusOr<std::unique_ptr<Verifier>> MakeVerifier(Expectation&& expected);

// As ConvertFile. After ContinueWithTorch.
absl::StatusOr<ConvertedFile> ConvertOffline(const OfflineConvertOptions& options, const std::string& in,
                                             const std::string& out);

}  // namespace refit::cli
