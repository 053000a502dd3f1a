// Adds to a program what packages install of it.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace refit {

// Adds --completion bash|zsh|fish and --man-page, which print and end like --help. `version`: "refit 0.1.0".
void AddPackageOptions(CLI::App& app, const std::string& version);

}  // namespace refit
