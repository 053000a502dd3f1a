// The families in families/*.toml, and the rules that they share in families/shared/*.toml, compiled in.
#pragma once

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace refit {

struct NamedText {
  absl::string_view name;
  absl::string_view text;
};

extern const absl::Span<const NamedText> kBuiltInFamilies;
extern const absl::Span<const NamedText> kSharedRules;

}  // namespace refit
