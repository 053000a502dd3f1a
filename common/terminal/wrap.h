// Wraps text.
#pragma once

#include <cstddef>
#include <string>

#include "absl/strings/string_view.h"

namespace refit {

// Wraps `text` at spaces. Every line but the last ends with `continuation`. Every line but the first begins with
// `indent` spaces; in the first, `first` columns are already used.
std::string Wrap(absl::string_view text, size_t width, size_t indent, size_t first,
                 absl::string_view continuation = "");

}  // namespace refit
