// Tables with aligned columns.
#pragma once

#include <cstdio>
#include <string>
#include <vector>

namespace refit::cli {

enum class Align { kLeft, kRight };

// Whether a column stays where the terminal is too narrow for all.
enum class Need { kAlways, kIfWide };

struct Column {
  std::string title;
  Align align = Align::kLeft;
  Need need = Need::kAlways;
};

class Table {
 public:
  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}

  // One cell a column.
  void AddRow(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }
  bool empty() const { return rows_.empty(); }

  // Columns without any text are left out. Where the table is wider than the terminal, its widest texts are shortened,
  // then columns that are not needed are left out from the right, and named below. Numbers are never shortened.
  void Print(std::FILE* stream) const;

  // The same, for `width` columns; 0: any.
  std::vector<std::string> Lines(size_t width, bool fancy) const;

 private:
  std::vector<size_t> NaturalWidths() const;
  std::vector<size_t> FittingWidths(size_t available, std::vector<std::string>& left_out) const;

  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

// "key   value" lines; values begin in the same column.
class Facts {
 public:
  void Add(std::string key, std::string value) { facts_.emplace_back(std::move(key), std::move(value)); }
  void Print(std::FILE* stream) const;

 private:
  std::vector<std::pair<std::string, std::string>> facts_;
};

}  // namespace refit::cli
