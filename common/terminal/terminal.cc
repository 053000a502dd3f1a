#include "common/terminal/terminal.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <string>

#include "absl/strings/str_cat.h"

namespace refit {
namespace {

constexpr winsize kDefaultSize = {24, 80, 0, 0};

// {0, 0} if the stream is not a terminal.
winsize Size(std::FILE* stream) {
  if (isatty(fileno(stream)) == 0) return {};
  winsize size{};
  if (ioctl(fileno(stream), TIOCGWINSZ, &size) != 0 || size.ws_col == 0 || size.ws_row == 0) return kDefaultSize;
  return size;
}

bool IsContinuation(char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; }

std::string Styled(absl::string_view text, absl::string_view code, bool fancy) {
  return fancy ? absl::StrCat("\x1b[", code, "m", text, "\x1b[0m") : std::string(text);
}

bool IsSet(const char* variable) {
  const char* value = std::getenv(variable);
  return value != nullptr && *value != '\0';
}

}  // namespace

bool IsFancy(std::FILE* stream) {
  return isatty(fileno(stream)) != 0 && !IsSet("NO_COLOR") && IsSet("TERM") &&
         std::string(std::getenv("TERM")) != "dumb";
}

int Width(std::FILE* stream) { return Size(stream).ws_col; }
int Height(std::FILE* stream) { return Size(stream).ws_row; }

size_t DisplayWidth(absl::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return !IsContinuation(c); }));
}

std::string Shorten(absl::string_view text, size_t width) {
  if (DisplayWidth(text) <= width) return std::string(text);
  const absl::string_view dots = absl::string_view("...").substr(0, width);
  size_t end = 0;
  for (size_t columns = 0; end < text.size(); ++end) {
    if (!IsContinuation(text[end]) && columns++ == width - dots.size()) break;
  }
  return absl::StrCat(text.substr(0, end), dots);
}

std::string Bold(absl::string_view text, bool fancy) { return Styled(text, "1", fancy); }
std::string Dim(absl::string_view text, bool fancy) { return Styled(text, "2", fancy); }

}  // namespace refit
