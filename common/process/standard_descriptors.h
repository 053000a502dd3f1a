// Numbers 0, 1 and 2 are stdin, stdout and stderr, also where a program is started without them.
#pragma once

namespace refit {

// Otherwise the next file or socket that is opened would take such a number, and what is written to stderr would land
// in it. Reads and writes fail, as on a closed descriptor. Call it first in main.
void ReserveStandardDescriptors();

}  // namespace refit
