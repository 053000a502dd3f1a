#include "common/adapters/toml_table.h"

namespace refit {
namespace {

absl::string_view View(std::string_view text) { return {text.data(), text.size()}; }

}  // namespace

const toml::node* TomlTable::Get(absl::string_view key) {
  read_.emplace(key);
  return table_.get(std::string_view(key.data(), key.size()));
}

void TomlTable::FailAt(const toml::node& node, absl::string_view what) {
  if (!status_.ok()) return;
  status_ = absl::InvalidArgumentError(absl::StrCat(source_, ":", node.source().begin.line, ": ", what));
}

void TomlTable::Fail(absl::string_view key, absl::string_view what) {
  const toml::node* node = table_.get(std::string_view(key.data(), key.size()));
  FailAt(node != nullptr ? *node : table_, what);
}

void TomlTable::CheckAllRead() {
  for (const auto& [key, node] : table_) {
    if (read_.count(key.str()) == 0) FailAt(node, absl::StrCat("unknown key '", View(key.str()), "'"));
  }
}

std::optional<std::string> TomlTable::Text(absl::string_view key) {
  const toml::node* node = Get(key);
  if (node == nullptr) return std::nullopt;
  if (node->is_string()) return node->as_string()->get();
  FailAt(*node, absl::StrCat("'", key, "' must be a string"));
  return std::nullopt;
}

std::string TomlTable::TextOr(absl::string_view key, absl::string_view otherwise) {
  return Text(key).value_or(std::string(otherwise));
}

std::string TomlTable::RequiredText(absl::string_view key) {
  if (!Has(key)) Fail(key, absl::StrCat("'", key, "' is missing"));
  return TextOr(key, "");
}

bool TomlTable::Flag(absl::string_view key) {
  const toml::node* node = Get(key);
  if (node == nullptr) return false;
  if (node->is_boolean()) return node->as_boolean()->get();
  FailAt(*node, absl::StrCat("'", key, "' must be true or false"));
  return false;
}

std::optional<int64_t> TomlTable::Number(absl::string_view key) {
  const toml::node* node = Get(key);
  if (node == nullptr) return std::nullopt;
  if (node->is_integer() && node->as_integer()->get() >= 0) return node->as_integer()->get();
  FailAt(*node, absl::StrCat("'", key, "' must be a number, 0 or more"));
  return std::nullopt;
}

std::vector<std::string> TomlTable::Texts(absl::string_view key) {
  const toml::node* node = Get(key);
  std::vector<std::string> texts;
  if (node == nullptr) return texts;
  if (node->is_string()) return {node->as_string()->get()};
  if (!node->is_array()) {
    FailAt(*node, absl::StrCat("'", key, "' must be a string, or an array of strings"));
    return texts;
  }
  for (const toml::node& text : *node->as_array()) {
    if (text.is_string()) {
      texts.push_back(text.as_string()->get());
    } else {
      FailAt(text, absl::StrCat("'", key, "' must have strings only"));
    }
  }
  return texts;
}

std::map<std::string, std::string> TomlTable::TextMap(absl::string_view key) {
  std::map<std::string, std::string> texts;
  Within(key, [&](TomlTable& table) {
    for (const auto& [name, node] : table.table_) texts[std::string(name.str())] = table.RequiredText(View(name.str()));
  });
  return texts;
}

std::map<std::string, std::vector<std::string>> TomlTable::TextsMap(absl::string_view key) {
  std::map<std::string, std::vector<std::string>> texts;
  Within(key, [&](TomlTable& table) {
    for (const auto& [name, node] : table.table_) texts[std::string(name.str())] = table.Texts(View(name.str()));
  });
  return texts;
}

void TomlTable::Within(absl::string_view key, absl::FunctionRef<void(TomlTable&)> read) {
  const toml::node* node = Get(key);
  if (node == nullptr) return;
  if (!node->is_table()) return FailAt(*node, absl::StrCat("'", key, "' must be a table"));
  TomlTable table(*node->as_table(), source_, status_);
  read(table);
  table.CheckAllRead();
}

void TomlTable::ForEach(absl::string_view key, absl::FunctionRef<void(TomlTable&)> read) {
  const toml::node* node = Get(key);
  if (node == nullptr) return;
  if (!node->is_array()) return FailAt(*node, absl::StrCat("'", key, "' must be an array of tables"));
  for (const toml::node& element : *node->as_array()) {
    if (!element.is_table()) return FailAt(element, absl::StrCat("'", key, "' must have tables only"));
    TomlTable table(*element.as_table(), source_, status_);
    read(table);
    table.CheckAllRead();
  }
}

}  // namespace refit
