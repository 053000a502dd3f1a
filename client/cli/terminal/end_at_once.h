// A reaction to Ctrl-C and SIGTERM.
#pragma once

#include <string>

#include "client/cli/run/interrupt.h"

namespace refit::cli {

// Until another reaction is set, a signal ends the process at once, with this line on stderr. For what may wait for
// long and leaves nothing to put in order, such as opening a file.
void EndAtOnce(Interrupt& interrupt, const std::string& line);

}  // namespace refit::cli
