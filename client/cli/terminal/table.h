// Prints tables with aligned columns.
#pragma once

#include <cstdio>
#include <string>
#include <vector>

namespace refit::cli {

enum class Align { kLeft, kRight };

// Whether a column is kept on a terminal that is too narrow for all columns.
enum class Need { kAlways, kIfWide };

struct Column {
  std::string title;
  Align align = Align::kLeft;
  Need need = Need::kAlways;
};

class Table {
 public:
  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}

  // One cell for each column.
  void AddRow(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }
  bool empty() const { return rows_.empty(); }

  // Prints the table. Empty columns are omitted. If the table is wider than the terminal, the widest texts are
  // shortened. Then optional columns are omitted, from right to left, and a line below names them. Numbers are never
  // shortened.
  void Print(std::FILE* stream) const;

  // The lines of the table at `width` columns; 0: any width.
  std::vector<std::string> Lines(size_t width, bool fancy) const;

 private:
  std::vector<size_t> NaturalWidths() const;
  std::vector<size_t> FittingWidths(size_t available, std::vector<std::string>& left_out) const;

  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

// Lines of keys and values, with the values aligned.
class Facts {
 public:
  void Add(std::string key, std::string value) { facts_.emplace_back(std::move(key), std::move(value)); }
  void Print(std::FILE* stream) const;

  // As Table::Lines; values are wrapped below themselves.
  std::vector<std::string> Lines(size_t width, bool fancy) const;

 private:
  std::vector<std::pair<std::string, std::string>> facts_;
};

}  // namespace refit::cli
