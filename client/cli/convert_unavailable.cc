// `refit convert` in a build without LibTorch: says so.
#include "client/cli/exit_code.h"
#include "client/cli/options.h"

namespace refit::cli {

void AddConvertCommand(CLI::App& app, Invocation& invocation) {
  CLI::App* command = AddCommand(app, invocation, "convert", "Not in this build: it lacks LibTorch", "", [] {
    return absl::UnimplementedError("needs LibTorch, which this build lacks (REFIT_WITH_TORCH=OFF)");
  });
  command->allow_extras();
}

}  // namespace refit::cli
