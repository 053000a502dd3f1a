#include "common/adapters/name_inverse.h"

#include <algorithm>
#include <array>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/adapters/family_names.h"

namespace refit {
namespace {

constexpr char kBefore[] = "before";
constexpr char kBehind[] = "behind";

void AddText(NamePieces& pieces, absl::string_view text) {
  if (text.empty()) return;
  if (pieces.empty() || pieces.back().kind != NamePiece::Kind::kText) pieces.push_back({});
  absl::StrAppend(&pieces.back().text, text);
}

// Reads a regex that is a fixed text but for its groups, such as '^mtp\.layers\.(\d+)\.norm$'.
class FixedRegex {
 public:
  explicit FixedRegex(absl::string_view pattern) : pattern_(pattern), rest_(pattern) {}

  absl::Status Read() {
    begins_ = absl::ConsumePrefix(&rest_, "^");
    while (!rest_.empty()) {
      if (rest_ == "$" || rest_ == "\\Z") {
        ends_ = true;
        break;
      }
      if (!ReadPiece()) {
        return absl::InvalidArgumentError(
            absl::StrCat("'", pattern_, "' is no fixed text outside of its groups, so it cannot be undone"));
      }
    }
    return absl::OkStatus();
  }

  bool begins() const { return begins_; }
  bool ends() const { return ends_; }
  NamePieces pieces() && { return std::move(pieces_); }

 private:
  bool ReadPiece() {
    if (rest_[0] == '(') return ReadGroup();
    if (rest_[0] == '\\') {
      if (rest_.size() < 2 || absl::ascii_isalnum(rest_[1])) return false;
      rest_.remove_prefix(1);
    } else if (absl::StrContains(".[]{}*+?|^$)", rest_[0])) {
      return false;
    }
    const bool repeats = rest_.size() > 1 && absl::StrContains("*+?{", rest_[1]);
    if (repeats) return false;
    AddText(pieces_, rest_.substr(0, 1));
    rest_.remove_prefix(1);
    return true;
  }

  // A group has its text in the name. What is optional, and in no group, is left out.
  bool ReadGroup() {
    const bool captures = !absl::StartsWith(rest_, "(?");
    if (!captures && !absl::StartsWith(rest_, "(?:")) return false;
    const size_t end = EndOfGroup();
    if (end == absl::string_view::npos) return false;
    if (captures && HasGroups(rest_.substr(1, end - 1))) return false;
    rest_.remove_prefix(end + 1);
    const bool optional = absl::ConsumePrefix(&rest_, "?") || (!captures && absl::ConsumePrefix(&rest_, "*"));
    if (!rest_.empty() && absl::StrContains("*+?{", rest_[0])) return false;
    if (captures) pieces_.push_back({NamePiece::Kind::kGroup, "", ++groups_});
    return captures || optional;
  }

  // The place of its ')'.
  size_t EndOfGroup() const {
    int depth = 0;
    for (size_t i = 0; i < rest_.size(); ++i) {
      if (rest_[i] == '\\') {
        ++i;
      } else if (rest_[i] == '[') {
        return absl::string_view::npos;  // a class may have parentheses
      } else if (rest_[i] == '(') {
        ++depth;
      } else if (rest_[i] == ')' && --depth == 0) {
        return i;
      }
    }
    return absl::string_view::npos;
  }

  static bool HasGroups(absl::string_view inside) {
    for (size_t i = 0; i < inside.size(); ++i) {
      if (inside[i] == '\\') {
        ++i;
      } else if (inside[i] == '(' && !absl::StartsWith(inside.substr(i), "(?:")) {
        return true;
      }
    }
    return false;
  }

  const absl::string_view pattern_;
  absl::string_view rest_;
  NamePieces pieces_;
  int groups_ = 0;
  bool begins_ = false;
  bool ends_ = false;
};

}  // namespace

NamePieces PiecesOf(absl::string_view text) {
  NamePieces pieces;
  while (!text.empty()) {
    if (absl::ConsumePrefix(&text, kExpertPlace)) {
      pieces.push_back({NamePiece::Kind::kExpert, "", 0});
    } else if (text.size() > 1 && text[0] == '\\' && text[1] >= '1' && text[1] <= '9') {
      pieces.push_back({NamePiece::Kind::kGroup, "", text[1] - '0'});
      text.remove_prefix(2);
    } else {
      AddText(pieces, text.substr(0, 1));
      text.remove_prefix(1);
    }
  }
  return pieces;
}

absl::StatusOr<NameInverse> NameInverse::OfReplacement(const NameFinder& find, absl::string_view to) {
  using Kind = NameMatcher::Kind;
  Side before;
  before.anything_before = find.kind() == Kind::kSuffix || find.kind() == Kind::kContains;
  before.anything_behind = find.kind() == Kind::kPrefix || find.kind() == Kind::kContains;
  if (find.kind() == Kind::kRegex) {
    FixedRegex regex(find.text());
    if (absl::Status status = regex.Read(); !status.ok()) return status;
    before.anything_before = !regex.begins();
    before.anything_behind = !regex.ends();
    before.pieces = std::move(regex).pieces();
  } else {
    AddText(before.pieces, find.text());
  }
  const Side after{PiecesOf(to), before.anything_before, before.anything_behind};
  return Make(std::move(before), after);
}

absl::StatusOr<NameInverse> NameInverse::OfWholeName(absl::string_view native, absl::string_view to) {
  return Make({PiecesOf(native), false, false}, {PiecesOf(to), false, false});
}

absl::StatusOr<NameInverse> NameInverse::Make(Side before, const Side& after) {
  NameInverse inverse;
  std::string pattern = "^";
  const auto capture = [&](NamePiece piece, absl::string_view inside) {
    absl::StrAppend(&pattern, "(", inside, ")");
    inverse.captures_.push_back(std::move(piece));
  };
  if (after.anything_before) capture({NamePiece::Kind::kText, kBefore, 0}, ".*");
  for (const NamePiece& piece : after.pieces) {
    if (piece.kind == NamePiece::Kind::kText) {
      absl::StrAppend(&pattern, QuoteRegex(piece.text));
    } else {
      capture(piece, piece.kind == NamePiece::Kind::kExpert ? "[0-9]+" : ".*");
    }
  }
  if (after.anything_behind) capture({NamePiece::Kind::kText, kBehind, 0}, ".*");
  for (const NamePiece& piece : before.pieces) {
    const bool known =
        piece.kind == NamePiece::Kind::kText || absl::c_any_of(inverse.captures_, [&](const NamePiece& other) {
          return other.kind == piece.kind && other.group == piece.group;
        });
    if (known) continue;
    return absl::InvalidArgumentError(piece.kind == NamePiece::Kind::kExpert
                                          ? std::string("a native name has no {expert}")
                                          : absl::StrCat("group ", piece.group, " is lost in the HF name"));
  }
  absl::StatusOr<std::shared_ptr<const PythonRegex>> regex = PythonRegex::Compile(pattern + "\\Z");
  if (!regex.ok()) return regex.status();
  inverse.after_ = *std::move(regex);
  inverse.before_ = std::move(before);
  return inverse;
}

std::optional<NameInverse::Found> NameInverse::Find(absl::string_view name) const {
  const std::vector<absl::string_view> found = after_->Find(name);
  if (found.empty()) return std::nullopt;
  std::array<absl::string_view, 10> groups;
  absl::string_view head;
  absl::string_view tail;
  Found result;
  for (size_t i = 0; i < captures_.size(); ++i) {
    const NamePiece& capture = captures_[i];
    const absl::string_view text = found[i + 1];
    if (capture.kind == NamePiece::Kind::kExpert) {
      result.expert = std::string(text);
    } else if (capture.kind == NamePiece::Kind::kGroup) {
      groups[static_cast<size_t>(capture.group)] = text;
    } else {
      (capture.text == kBefore ? head : tail) = text;
    }
  }
  result.name = std::string(head);
  for (const NamePiece& piece : before_.pieces) {
    absl::StrAppend(&result.name, piece.kind == NamePiece::Kind::kText ? absl::string_view(piece.text)
                                                                       : groups[static_cast<size_t>(piece.group)]);
  }
  absl::StrAppend(&result.name, tail);
  return result;
}

}  // namespace refit
