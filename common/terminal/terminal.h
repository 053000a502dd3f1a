// What stands at the other end of stdout and stderr.
#pragma once

#include <cstdio>
#include <string>

#include "absl/strings/string_view.h"

namespace refit {

// Whether colours, bars and cursor movements are welcome there: a terminal of a kind that TERM names, not dumb, and no
// NO_COLOR.
bool IsFancy(std::FILE* stream);

// Columns; 0 when it is no terminal, and lines may have any length.
int Width(std::FILE* stream);

// Lines of the terminal; 0 when it is none.
int Height(std::FILE* stream);

// Columns that `text` takes: UTF-8 code points.
size_t DisplayWidth(absl::string_view text);

// `text` cut to `width` columns; "..." shows that something is missing.
std::string Shorten(absl::string_view text, size_t width);

// ANSI colours, applied only if `fancy`.
std::string Bold(absl::string_view text, bool fancy);
std::string Dim(absl::string_view text, bool fancy);

}  // namespace refit
