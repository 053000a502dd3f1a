// Finds out what kind of terminal stdout and stderr are, and fits text to it.
#pragma once

#include <cstdio>
#include <string>

#include "absl/strings/string_view.h"

namespace refit {

// Whether to use colours, bars and cursor movements: the stream is a terminal, TERM is set and not dumb, and NO_COLOR
// is not set.
bool IsFancy(std::FILE* stream);

// Columns of the terminal. 0 if it is not a terminal; lines may then have any length.
int Width(std::FILE* stream);

// Lines of the terminal. 0 if it is not a terminal.
int Height(std::FILE* stream);

// Columns that `text` takes: the number of UTF-8 code points.
size_t DisplayWidth(absl::string_view text);

// `text` cut to `width` columns, with "..." at the cut.
std::string Shorten(absl::string_view text, size_t width);

// Adds ANSI colours if `fancy`.
std::string Bold(absl::string_view text, bool fancy);
std::string Dim(absl::string_view text, bool fancy);

}  // namespace refit
