// Undoes what a rule or a rename has done to a name.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/adapters/name_rewriter.h"
#include "common/adapters/python_regex.h"

namespace refit {

// A name as a row of texts and of groups, which have text of their own in each name.
struct NamePiece {
  enum class Kind { kText, kGroup, kExpert };
  Kind kind = Kind::kText;
  std::string text;  // of kText
  int group = 0;     // of kGroup, from 1
};
using NamePieces = std::vector<NamePiece>;

// The pieces of a text with \1 to \9 and, perhaps, {expert}.
NamePieces PiecesOf(absl::string_view text);

// Compiled. Immutable, thread-safe. It proposes; whether the name comes out again is for the caller to see.
class NameInverse {
 public:
  // Of `to` in the place of what `find` finds. INVALID_ARGUMENT if that loses something, such as a regex's part outside
  // of groups that is not a fixed text.
  static absl::StatusOr<NameInverse> OfReplacement(const NameFinder& find, absl::string_view to);
  // Of `to`, a whole name, made from groups of `native`, a whole name as well.
  static absl::StatusOr<NameInverse> OfWholeName(absl::string_view native, absl::string_view to);

  struct Found {
    std::string name;                   // as it was before
    std::optional<std::string> expert;  // what stood for {expert}
  };
  // nullopt if the name does not look as if it came of this.
  std::optional<Found> Find(absl::string_view name) const;

 private:
  struct Side {
    NamePieces pieces;
    bool anything_before = false;
    bool anything_behind = false;
  };
  static absl::StatusOr<NameInverse> Make(Side before, const Side& after);

  Side before_;
  std::shared_ptr<const PythonRegex> after_;
  std::vector<NamePiece> captures_;  // what each group of after_ is; those beside the pieces are kText
};

}  // namespace refit
