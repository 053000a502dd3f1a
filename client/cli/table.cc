#include "client/cli/table.h"

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "client/cli/terminal.h"

namespace refit::cli {
namespace {

constexpr size_t kGap = 2;
constexpr size_t kNarrowest = 12;

std::string Pad(const std::string& text, size_t width, Align align) {
  const std::string shown = Shorten(text, width);
  const std::string spaces(width - DisplayWidth(shown), ' ');
  return align == Align::kRight ? spaces + shown : shown + spaces;
}

void PrintLine(std::FILE* stream, const std::string& line) { std::fprintf(stream, "%s\n", line.c_str()); }

}  // namespace

std::vector<size_t> Table::ColumnWidths(size_t available) const {
  std::vector<size_t> widths;
  for (size_t i = 0; i < columns_.size(); ++i) {
    size_t width = 0;
    for (const auto& row : rows_) width = std::max(width, DisplayWidth(row[i]));
    widths.push_back(width == 0 ? 0 : std::max(width, DisplayWidth(columns_[i].title)));
  }
  const auto total = [&] {
    size_t sum = 0;
    for (const size_t width : widths) sum += width == 0 ? 0 : width + kGap;
    return sum - std::min(sum, kGap);
  };
  while (available != 0 && total() > available) {
    size_t* widest = nullptr;
    for (size_t i = 0; i < widths.size(); ++i) {
      const bool is_text = columns_[i].align == Align::kLeft;
      if (is_text && widths[i] > kNarrowest && (widest == nullptr || widths[i] > *widest)) widest = &widths[i];
    }
    if (widest == nullptr) break;
    --*widest;
  }
  return widths;
}

void Table::Print(std::FILE* stream) const {
  const bool fancy = IsFancy(stream);
  const std::vector<size_t> widths = ColumnWidths(static_cast<size_t>(Width(stream)));
  const auto line = [&](const auto& cell) {
    std::string text;
    for (size_t i = 0; i < columns_.size(); ++i) {
      if (widths[i] == 0) continue;
      absl::StrAppend(&text, text.empty() ? "" : std::string(kGap, ' '), Pad(cell(i), widths[i], columns_[i].align));
    }
    return std::string(absl::StripTrailingAsciiWhitespace(text));
  };
  PrintLine(stream, Bold(line([&](size_t i) -> const std::string& { return columns_[i].title; }), fancy));
  for (const auto& row : rows_) {
    PrintLine(stream, line([&](size_t i) -> const std::string& { return row[i]; }));
  }
}

void Facts::Print(std::FILE* stream) const {
  const bool fancy = IsFancy(stream);
  size_t width = 0;
  for (const auto& [key, value] : facts_) width = std::max(width, DisplayWidth(key));
  for (const auto& [key, value] : facts_) {
    PrintLine(stream, absl::StrCat(Bold(Pad(key, width, Align::kLeft), fancy), "  ", value));
  }
}

}  // namespace refit::cli
