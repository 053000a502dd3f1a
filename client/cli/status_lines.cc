#include "client/cli/status_lines.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "client/cli/format.h"

namespace refit::cli {

StatusLines::StatusLines(std::FILE* stream, bool json)
    : writer_(fileno(stream), [json](uint64_t lines) {
        return json ? absl::StrCat("{\"dropped_lines\":", lines, "}")
                    : absl::StrCat("(", FormatCount(lines, "line"), " dropped: nobody read them)");
      }) {}

void SayOnStderr(std::string line) { StatusLines(stderr).Say(std::move(line)); }

}  // namespace refit::cli
