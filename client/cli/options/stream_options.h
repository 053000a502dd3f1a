// Over how many connections a version is pulled.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>

namespace refit::cli {

// Adds --streams; "auto" is 0.
void AddStreamsOption(CLI::App* command, uint32_t& streams);

}  // namespace refit::cli
