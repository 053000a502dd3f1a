#include "common/terminal/wrap.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace refit {

std::string Wrap(absl::string_view text, size_t width, size_t indent, size_t first, absl::string_view continuation) {
  std::string out;
  size_t column = first;
  bool begins = true;
  for (const absl::string_view word : absl::StrSplit(text, absl::ByAnyChar(" \n"), absl::SkipEmpty())) {
    if (!begins && column + 1 + word.size() + continuation.size() > width) {
      absl::StrAppend(&out, continuation, "\n", std::string(indent, ' '));
      column = indent;
    } else if (!begins) {
      out += ' ';
      ++column;
    }
    absl::StrAppend(&out, word);
    column += word.size();
    begins = false;
  }
  return out;
}

}  // namespace refit
