#include "common/adapters/python_regex.h"

#include <re2/re2.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/algorithm/container.h"
#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace refit {
namespace {

// The memory that RE2 may use for a compiled pattern and its automaton.
constexpr int64_t kMaxCompiledBytes = 8 << 20;

// Python's character classes for str, as members of a bracket. Each begins and ends so that a `-` next to it does not
// make a range.
constexpr absl::string_view kDigit = R"(\p{Nd})";
constexpr absl::string_view kNotDigit = R"(\P{Nd})";
constexpr absl::string_view kWord = R"(\p{L}_\p{N})";
// The complement, by categories: everything but L, N and the underscore.
constexpr absl::string_view kNotWord =
    R"(\p{M}\p{S}\p{Z}\p{C}\p{Pd}\p{Ps}\p{Pe}\p{Pi}\p{Pf}\x{203F}-\x{2040}\x{2054}\x{FE33}-\x{FE34}\x{FE4D}-\x{FE4F}\x{FF3F}\p{Po})";
constexpr absl::string_view kSpace =
    R"(\t-\r\x1C- \x{85}\x{A0}\x{1680}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000}\x{2000}-\x{200A})";
constexpr absl::string_view kNotSpace =
    R"(\x00-\x08\x0E-\x1B!-\x{84}\x{86}-\x{9F}\x{A1}-\x{167F}\x{1681}-\x{1FFF}\x{200B}-\x{2027}\x{202A}-\x{202E}\x{2030}-\x{205E}\x{2060}-\x{2FFF}\x{3001}-\x{10FFFF})";

// `$` without the multiline flag: the end of the text, or before a newline at its end.
constexpr absl::string_view kDollar = R"((?:\n?\z))";

bool IsOctal(char c) { return c >= '0' && c <= '7'; }

// Translates a pattern from Python's syntax to RE2's in one pass. It changes only what differs; RE2 checks the rest.
class Translator {
 public:
  explicit Translator(absl::string_view pattern) : pattern_(pattern) {}

  absl::StatusOr<std::string> Run() {
    while (position_ < pattern_.size()) {
      if (absl::Status status = in_class_ ? ClassMember() : Token(); !status.ok()) return status;
    }
    return std::move(out_);
  }

 private:
  absl::string_view rest() const { return pattern_.substr(position_); }

  absl::Status Invalid(absl::string_view what) const {
    return absl::InvalidArgumentError(
        absl::StrCat("invalid regex \"", absl::Utf8SafeCEscape(pattern_), "\": ", what, " at offset ", position_));
  }

  void Copy(size_t count) { Replace(count, rest().substr(0, count)); }
  void Replace(size_t count, absl::string_view by) {
    absl::StrAppend(&out_, by);
    position_ += count;
  }

  absl::Status Token() {
    switch (pattern_[position_]) {
      case '\\':
        return Escape();
      case '[':
        return OpenClass();
      case '(':
        return OpenGroup();
      case ')':
        if (!outer_multiline_.empty()) {
          multiline_ = outer_multiline_.back();
          outer_multiline_.pop_back();
        }
        Copy(1);
        return absl::OkStatus();
      case '$':
        Replace(1, multiline_ ? "$" : kDollar);
        return absl::OkStatus();
      case '{':
        Repetition();
        return absl::OkStatus();
      default:
        Copy(1);
        return absl::OkStatus();
    }
  }

  // `{,n}` means `{0,n}` in Python. RE2 would take it literally.
  void Repetition() {
    size_t end = position_ + 2;
    while (end < pattern_.size() && absl::ascii_isdigit(pattern_[end])) ++end;
    if (absl::StartsWith(rest(), "{,") && end < pattern_.size() && pattern_[end] == '}') {
      Replace(1, "{0");
    } else {
      Copy(1);
    }
  }

  absl::Status OpenGroup() {
    for (absl::string_view look : {"(?=", "(?!", "(?<=", "(?<!"}) {
      if (absl::StartsWith(rest(), look))
        return Invalid("look-around is not supported, since matching takes linear time");
    }
    if (absl::StartsWith(rest(), "(?P=")) return BackReference();
    outer_multiline_.push_back(multiline_);
    if (absl::StartsWith(rest(), "(?") && !absl::StartsWith(rest(), "(?P")) return Flags();
    Copy(1);
    return absl::OkStatus();
  }

  // `(?flags)`, `(?flags:...)` and `(?:...)` are copied, but `m` decides what `$` means from here on.
  absl::Status Flags() {
    bool on = true;
    size_t end = position_ + 2;
    for (; end < pattern_.size() && (absl::ascii_isalpha(pattern_[end]) || pattern_[end] == '-'); ++end) {
      if (pattern_[end] == '-') on = false;
      if (pattern_[end] == 'm') multiline_ = on;
      if (pattern_[end] == 'U') return Invalid("unknown flag U");
    }
    if (end < pattern_.size() && pattern_[end] == ')') {
      outer_multiline_.pop_back();  // no group was opened: the flags hold until the enclosing group ends
      ++end;
    }
    Copy(end - position_);
    return absl::OkStatus();
  }

  absl::Status OpenClass() {
    in_class_ = true;
    Copy(1);
    if (absl::StartsWith(rest(), "^")) Copy(1);
    if (absl::StartsWith(rest(), "]")) Replace(1, R"(\])");  // first in a class, it is a literal
    return absl::OkStatus();
  }

  absl::Status ClassMember() {
    switch (pattern_[position_]) {
      case '\\':
        return Escape();
      case ']':
        in_class_ = false;
        Copy(1);
        return absl::OkStatus();
      case '[':  // a literal in Python, but RE2 knows [:alpha:]
        Replace(1, R"(\[)");
        return absl::OkStatus();
      default:
        Copy(1);
        return absl::OkStatus();
    }
  }

  absl::Status BackReference() const {
    return Invalid("back-references are not supported, since matching takes linear time");
  }

  void Class(absl::string_view members) {
    if (in_class_) {
      Replace(2, members);
    } else {
      Replace(2, absl::StrCat("[", members, "]"));
    }
  }

  // \d, \D, \s, \S, \w and \W; false for another letter.
  bool ClassEscape(char c) {
    switch (c) {
      case 'd':
        Class(kDigit);
        return true;
      case 'D':
        Class(kNotDigit);
        return true;
      case 's':
        Class(kSpace);
        return true;
      case 'S':
        Class(kNotSpace);
        return true;
      case 'w':
        Class(kWord);
        return true;
      case 'W':
        // Outside of a bracket the negation is exact. It includes unassigned code points.
        if (in_class_) {
          Class(kNotWord);
        } else {
          Replace(2, absl::StrCat("[^", kWord, "]"));
        }
        return true;
      default:
        return false;
    }
  }

  absl::Status Escape() {
    if (position_ + 1 == pattern_.size()) return Invalid("a trailing backslash");
    const char c = pattern_[position_ + 1];
    if (ClassEscape(c)) return absl::OkStatus();
    switch (c) {
      case 'b':
        if (in_class_) {
          Replace(2, R"(\x08)");
        } else {
          Copy(2);
        }
        return absl::OkStatus();
      case 'A':
      case 'B':
        if (in_class_) return BadEscape(c);
        Copy(2);
        return absl::OkStatus();
      case 'Z':
        if (in_class_) return BadEscape(c);
        Replace(2, R"(\z)");
        return absl::OkStatus();
      case 'u':
        return CodePoint(4);
      case 'U':
        return CodePoint(8);
      case 'x':
        return CodePoint(2);
      default:
        break;
    }
    if (absl::ascii_isdigit(c)) return NumericEscape();
    if (absl::ascii_isalpha(c) && !absl::StrContains("afnrtv", absl::string_view(&c, 1))) return BadEscape(c);
    if (absl::ascii_isascii(c)) {
      Copy(2);
    } else {
      ++position_;  // Python allows escaping any character, RE2 only ASCII
    }
    return absl::OkStatus();
  }

  absl::Status BadEscape(char c) const { return Invalid(absl::StrCat("bad escape \\", absl::string_view(&c, 1))); }

  // `\xhh`, `\uhhhh`, `\Uhhhhhhhh`.
  absl::Status CodePoint(size_t digits) {
    const absl::string_view hex = rest().substr(2, digits);
    uint32_t value = 0;
    if (hex.size() != digits || !absl::c_all_of(hex, absl::ascii_isxdigit) || !absl::SimpleHexAtoi(hex, &value) ||
        value > 0x10FFFF) {
      return Invalid("incomplete escape");
    }
    Replace(2 + digits, absl::StrCat(R"(\x{)", absl::Hex(value), "}"));
    return absl::OkStatus();
  }

  // A number is octal if it begins with 0, has three octal digits, or is in a class. Otherwise it refers to a group.
  absl::Status NumericEscape() {
    const absl::string_view digits = rest().substr(1);
    const size_t longest = digits[0] == '0' || in_class_ || digits.size() >= 3 ? 3 : 0;
    size_t count = 0;
    uint32_t value = 0;
    while (count < longest && count < digits.size() && IsOctal(digits[count])) {
      value = value * 8 + static_cast<uint32_t>(digits[count++] - '0');
    }
    if (digits[0] != '0' && !in_class_ && count < 3) return BackReference();
    if (count == 0 || value > 0377) return Invalid("bad octal escape");
    Replace(1 + count, absl::StrCat(R"(\x{)", absl::Hex(value), "}"));
    return absl::OkStatus();
  }

  const absl::string_view pattern_;
  size_t position_ = 0;
  std::string out_;
  bool in_class_ = false;
  bool multiline_ = false;
  std::vector<bool> outer_multiline_;  // one value for each open group
};

absl::Status CompileError(absl::string_view pattern, const RE2& re) {
  if (re.error_code() == RE2::ErrorPatternTooLarge) {
    return absl::ResourceExhaustedError(
        absl::StrCat("regex \"", absl::Utf8SafeCEscape(pattern), "\" is too large when compiled"));
  }
  return absl::InvalidArgumentError(
      absl::StrCat("invalid regex \"", absl::Utf8SafeCEscape(pattern), "\": ", re.error()));
}

}  // namespace

struct PythonRegex::Impl {
  Impl(const std::string& pattern, const RE2::Options& options) : re(pattern, options) {}
  bool Find(absl::string_view text, RE2::Anchor anchor) const {
    return re.Match(re2::StringPiece(text.data(), text.size()), 0, text.size(), anchor, nullptr, 0);
  }
  RE2 re;
};

absl::StatusOr<std::shared_ptr<const PythonRegex>> PythonRegex::Compile(absl::string_view pattern) {
  if (pattern.size() > kMaxPatternBytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat("regex has ", pattern.size(), " bytes, at most ", kMaxPatternBytes, " are allowed"));
  }
  absl::StatusOr<std::string> translated = Translator(pattern).Run();
  if (!translated.ok()) return translated.status();

  RE2::Options options;
  options.set_log_errors(false);
  options.set_max_mem(kMaxCompiledBytes);
  options.set_encoding(RE2::Options::EncodingUTF8);
  auto impl = std::make_unique<Impl>(*translated, options);
  if (!impl->re.ok()) return CompileError(pattern, impl->re);
  return std::shared_ptr<const PythonRegex>(new PythonRegex(std::string(pattern), std::move(impl)));
}

PythonRegex::PythonRegex(std::string pattern, std::unique_ptr<Impl> impl)
    : pattern_(std::move(pattern)), impl_(std::move(impl)) {}

absl::StatusOr<std::function<bool(absl::string_view)>> PythonRegex::Matcher(absl::string_view pattern) {
  if (pattern.empty()) return nullptr;
  absl::StatusOr<std::shared_ptr<const PythonRegex>> regex = Compile(pattern);
  if (!regex.ok()) return regex.status();
  return [regex = *std::move(regex)](absl::string_view text) { return regex->Match(text); };
}

PythonRegex::~PythonRegex() = default;

bool PythonRegex::Match(absl::string_view text) const { return impl_->Find(text, RE2::ANCHOR_START); }

bool PythonRegex::Search(absl::string_view text) const { return impl_->Find(text, RE2::UNANCHORED); }

std::vector<absl::string_view> PythonRegex::Find(absl::string_view text) const {
  std::vector<re2::StringPiece> pieces(static_cast<size_t>(groups()) + 1);
  const re2::StringPiece piece(text.data(), text.size());
  if (!impl_->re.Match(piece, 0, text.size(), RE2::UNANCHORED, pieces.data(), static_cast<int>(pieces.size()))) {
    return {};
  }
  std::vector<absl::string_view> found;
  found.reserve(pieces.size());
  for (const re2::StringPiece& group : pieces) found.emplace_back(group.data(), group.size());
  return found;
}

int PythonRegex::groups() const { return impl_->re.NumberOfCapturingGroups(); }

std::string QuoteRegex(absl::string_view text) { return RE2::QuoteMeta(re2::StringPiece(text.data(), text.size())); }

}  // namespace refit
