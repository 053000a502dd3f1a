// Writes a program's manual page from its CLI11 definition, the same that --help shows.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace refit {

// For man, in section 1. `version`: "refit 0.1.0".
std::string ManPage(const CLI::App& app, const std::string& version);

}  // namespace refit
