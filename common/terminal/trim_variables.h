// Takes what is around the values of environment variables.
#pragma once

#include <CLI/CLI.hpp>

namespace refit {

// Takes blanks and newlines from both ends of the variables that options of `app` and its commands read. Values out of
// files, such as Kubernetes' secrets, often end in a newline. It changes the environment: call it before threads start.
void TrimVariables(const CLI::App& app);

}  // namespace refit
