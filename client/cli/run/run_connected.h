// Connects and runs commands that make a few calls.
#pragma once

#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "client/cli/run/common_options.h"
#include "client/cli/run/interrupt.h"

namespace refit::cli {

inline constexpr char kNothingChanged[] = "nothing has changed";

// Connects a Client (an Inspector or a Publisher) and calls `run` with it. Ctrl-C or SIGTERM ends both at once with
// CANCELLED, "interrupted; <consequence>". Call it before any other thread starts.
template <typename Client, typename Run>
absl::Status RunConnected(const CommonOptions& common, absl::string_view consequence, Run run) {
  Interrupt interrupt;
  absl::StatusOr<std::unique_ptr<Client>> client = Client::Connect(common.Channel(interrupt));
  if (!client.ok()) return interrupt.Explain(client.status(), consequence);
  interrupt.SetReaction([&] { (*client)->Cancel(); });
  const absl::Status status = run(**client);
  interrupt.SetReaction(nullptr);
  return interrupt.Explain(status, consequence);
}

}  // namespace refit::cli
