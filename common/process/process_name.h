// A name for this process.
#pragma once

#include <string>

namespace refit {

// "host/pid", for people. It is not unique: containers may share both.
std::string HostAndProcess();

}  // namespace refit
