#include "client/cli/terminal/status_lines.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "client/cli/terminal/format.h"

namespace refit::cli {
namespace {

// Escapes control characters except line ends: those of ASCII, and those encoded in UTF-8 as C2 80 to C2 9F.
std::string WithoutControls(absl::string_view line) {
  std::string out;
  out.reserve(line.size());
  for (size_t i = 0; i < line.size(); ++i) {
    const auto byte = static_cast<unsigned char>(line[i]);
    const auto next = static_cast<unsigned char>(i + 1 < line.size() ? line[i + 1] : 0);
    const bool is_control =
        (byte < 0x20 && byte != '\n') || byte == 0x7f || (byte == 0xc2 && next >= 0x80 && next < 0xa0);
    if (is_control) {
      absl::StrAppendFormat(&out, "\\x%02x", byte);
    } else {
      out += line[i];
    }
  }
  return out;
}

}  // namespace

StatusLines::StatusLines(std::FILE* stream, bool json)
    : writer_(fileno(stream), [json](uint64_t lines) {
        return json ? absl::StrCat("{\"dropped_lines\":", lines, "}")
                    : absl::StrCat("(", FormatCount(lines, "line"), " dropped: nobody read them)");
      }) {}

void StatusLines::Say(const std::string& line) { writer_.Write(WithoutControls(line)); }

void SayOnStderr(const std::string& line) { StatusLines(stderr).Say(line); }

}  // namespace refit::cli
