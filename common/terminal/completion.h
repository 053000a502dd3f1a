// Writes scripts by which shells complete a program's command line.
#pragma once

#include <string>
#include <vector>

#include "common/terminal/command_words.h"

namespace refit {

std::string BashCompletion(const CommandWords& program);
std::string ZshCompletion(const CommandWords& program);
std::string FishCompletion(const CommandWords& program);

}  // namespace refit
