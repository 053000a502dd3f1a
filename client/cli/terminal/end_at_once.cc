#include "client/cli/terminal/end_at_once.h"

#include <cstdlib>

#include "client/cli/run/exit_code.h"
#include "client/cli/terminal/status_lines.h"

namespace refit::cli {

void EndAtOnce(Interrupt& interrupt, const std::string& line) {
  interrupt.SetReaction([line] {
    SayOnStderr(line);
    std::_Exit(kExitInterrupted);
  });
}

}  // namespace refit::cli
