// Names of temporary files, and removal of those that killed writers left. For this project's own use.
#pragma once

#include <ctime>
#include <filesystem>
#include <string>

#include "absl/strings/string_view.h"

namespace refit {

// A name for this process on this machine. A dead process with the same id may have left a file of that name.
std::string NewTemporaryName();

// Whether this is the name of a writer's temporary file.
bool IsTemporaryName(absl::string_view file_name);

// Removes temporary files of writers that ended without removing them. A writer holds a lock on its file as long as it
// lives. Locks of other machines may be invisible here, so only files older than a day are removed. `now` is the file
// system's own time, which may differ from this host's.
void RemoveLeftFiles(const std::filesystem::path& folder, time_t now);

}  // namespace refit
