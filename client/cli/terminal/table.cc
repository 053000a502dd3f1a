#include "client/cli/terminal/table.h"

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/terminal/terminal.h"
#include "common/terminal/wrap.h"

namespace refit::cli {
namespace {

constexpr size_t kGap = 2;
// Widths to which texts are shortened: kNarrow before columns are omitted, kNarrowest after.
constexpr size_t kNarrow = 12;
constexpr size_t kNarrowest = 6;

std::string Pad(const std::string& text, size_t width, Align align) {
  const std::string shown = Shorten(text, width);
  const std::string spaces(width - DisplayWidth(shown), ' ');
  return align == Align::kRight ? spaces + shown : shown + spaces;
}

size_t Total(const std::vector<size_t>& widths) {
  size_t sum = 0;
  for (const size_t width : widths) sum += width == 0 ? 0 : width + kGap;
  return sum - std::min(sum, kGap);
}

void PrintLine(std::FILE* stream, const std::string& line) { std::fprintf(stream, "%s\n", line.c_str()); }

}  // namespace

std::vector<size_t> Table::NaturalWidths() const {
  std::vector<size_t> widths;
  for (size_t i = 0; i < columns_.size(); ++i) {
    size_t width = 0;
    for (const auto& row : rows_) width = std::max(width, DisplayWidth(row[i]));
    widths.push_back(width == 0 ? 0 : std::max(width, DisplayWidth(columns_[i].title)));
  }
  return widths;
}

std::vector<size_t> Table::FittingWidths(size_t available, std::vector<std::string>& left_out) const {
  std::vector<size_t> widths = NaturalWidths();
  const auto is_too_wide = [&] { return available != 0 && Total(widths) > available; };
  const auto shorten_texts = [&](size_t narrowest) {
    while (is_too_wide()) {
      size_t* widest = nullptr;
      for (size_t i = 0; i < widths.size(); ++i) {
        const bool is_text = columns_[i].align == Align::kLeft;
        if (is_text && widths[i] > narrowest && (widest == nullptr || widths[i] > *widest)) widest = &widths[i];
      }
      if (widest == nullptr) return;
      --*widest;
    }
  };
  shorten_texts(kNarrow);
  for (size_t i = widths.size(); i-- > 0 && is_too_wide();) {
    if (columns_[i].need == Need::kAlways || widths[i] == 0) continue;
    left_out.insert(left_out.begin(), columns_[i].title);
    widths[i] = 0;
  }
  shorten_texts(kNarrowest);
  return widths;
}

std::vector<std::string> Table::Lines(size_t width, bool fancy) const {
  std::vector<std::string> left_out;
  const std::vector<size_t> widths = FittingWidths(width, left_out);
  const auto line = [&](const auto& cell) {
    std::string text;
    for (size_t i = 0; i < columns_.size(); ++i) {
      if (widths[i] == 0) continue;
      absl::StrAppend(&text, text.empty() ? "" : std::string(kGap, ' '), Pad(cell(i), widths[i], columns_[i].align));
    }
    return std::string(absl::StripTrailingAsciiWhitespace(text));
  };
  std::vector<std::string> lines = {
      Bold(line([&](size_t i) -> const std::string& { return columns_[i].title; }), fancy)};
  for (const auto& row : rows_) lines.push_back(line([&](size_t i) -> const std::string& { return row[i]; }));
  if (!left_out.empty()) {
    lines.push_back(Dim(Shorten(absl::StrCat("no room for: ", absl::StrJoin(left_out, ", ")), width), fancy));
  }
  return lines;
}

void Table::Print(std::FILE* stream) const {
  for (const std::string& line : Lines(static_cast<size_t>(Width(stream)), IsFancy(stream))) PrintLine(stream, line);
}

std::vector<std::string> Facts::Lines(size_t width, bool fancy) const {
  size_t keys = 0;
  for (const auto& [key, value] : facts_) keys = std::max(keys, DisplayWidth(key));
  const size_t indent = keys + kGap;
  std::vector<std::string> lines;
  for (const auto& [key, value] : facts_) {
    const std::string shown = width == 0 ? value : Wrap(value, width, indent, indent);
    lines.push_back(absl::StrCat(Bold(Pad(key, keys, Align::kLeft), fancy), std::string(kGap, ' '), shown));
  }
  return lines;
}

void Facts::Print(std::FILE* stream) const {
  for (const std::string& line : Lines(static_cast<size_t>(Width(stream)), IsFancy(stream))) PrintLine(stream, line);
}

}  // namespace refit::cli
