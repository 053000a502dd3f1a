// Names of files on their way to their own names, and what is left of writers that were killed. For this project's own
// use.
#pragma once

#include <ctime>
#include <filesystem>
#include <string>

#include "absl/strings/string_view.h"

namespace refit {

// Of this process, on this machine. A process of the same id, now dead, may have left a file of that name.
std::string NewTemporaryName();

// Whether a file of this name is a writer's temporary one.
bool IsTemporaryName(absl::string_view file_name);

// Removes the temporary files of writers that ended without doing so. A writer holds a lock on its file as long as it
// lives. Another machine's locks may not be seen here, so its files must also be a day old. `now` is the file system's
// own time, which need not be this host's.
void RemoveLeftFiles(const std::filesystem::path& folder, time_t now);

}  // namespace refit
