// One push of `refit push`, from its opening to its commit.
#pragma once

#include <memory>

#include "absl/status/status.h"
#include "client/cli/commands/push_report.h"
#include "client/cli/run/interrupt.h"
#include "client/cli/terminal/progress.h"
#include "client/native/shard_source.h"
#include "refit/publisher.h"

namespace refit::cli {

// Pushes what the source holds as one version, and notes in `report` how that went. An interrupt aborts the version:
// CANCELLED, saying what has become of it. Sets the interrupt's reaction meanwhile.
absl::Status RunPush(PublishOptions options, Publisher& publisher, std::shared_ptr<const ShardSource> source,
                     TransferProgress& progress, Interrupt& interrupt, PushReport& report);

}  // namespace refit::cli
