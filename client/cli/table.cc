#include "client/cli/table.h"

#include <algorithm>
#include <numeric>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/cli/terminal.h"

namespace refit::cli {
namespace {

constexpr size_t kGap = 2;
constexpr size_t kNarrowest = 12;

std::string Pad(const std::string& text, size_t width, Align align, bool last) {
  const std::string shown = Shorten(text, width);
  const std::string spaces(width - DisplayWidth(shown), ' ');
  if (align == Align::kRight) return spaces + shown;
  return last ? shown : shown + spaces;
}

void PrintLine(std::FILE* stream, const std::string& line) { std::fprintf(stream, "%s\n", line.c_str()); }

}  // namespace

std::vector<size_t> Table::ColumnWidths(size_t available) const {
  std::vector<size_t> widths;
  for (size_t i = 0; i < columns_.size(); ++i) {
    size_t width = DisplayWidth(columns_[i].title);
    for (const auto& row : rows_) width = std::max(width, DisplayWidth(row[i]));
    widths.push_back(width);
  }
  const size_t total = std::accumulate(widths.begin(), widths.end(), kGap * (widths.size() - 1));
  if (available != 0 && total > available) {
    size_t& widest = *std::max_element(widths.begin(), widths.end());
    const size_t excess = total - available;
    widest = std::max(kNarrowest, widest > excess ? widest - excess : 0);
  }
  return widths;
}

void Table::Print(std::FILE* stream) const {
  const bool fancy = IsFancy(stream);
  const std::vector<size_t> widths = ColumnWidths(static_cast<size_t>(Width(stream)));
  const auto line = [&](const auto& cell) {
    std::string text;
    for (size_t i = 0; i < columns_.size(); ++i) {
      absl::StrAppend(&text, i == 0 ? "" : std::string(kGap, ' '),
                      Pad(cell(i), widths[i], columns_[i].align, i + 1 == columns_.size()));
    }
    return text;
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
    PrintLine(stream, absl::StrCat(Bold(Pad(key, width, Align::kLeft, false), fancy), "  ", value));
  }
}

}  // namespace refit::cli
