// A TOML table that is read key by key. The first error stays; each names source and line.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/limits/toml.h"

namespace refit {

class TomlTable {
 public:
  // `status` collects the first error of this table and of those within it.
  TomlTable(const toml::table& table, const std::string& source, absl::Status& status)
      : table_(table), source_(source), status_(status) {}

  bool Has(absl::string_view key) const { return table_.contains(std::string_view(key.data(), key.size())); }

  std::optional<std::string> Text(absl::string_view key);
  std::string TextOr(absl::string_view key, absl::string_view otherwise);
  std::string RequiredText(absl::string_view key);
  bool Flag(absl::string_view key);
  std::optional<int64_t> Number(absl::string_view key);
  // An array of strings, or one string.
  std::vector<std::string> Texts(absl::string_view key);
  // A table of strings.
  std::map<std::string, std::string> TextMap(absl::string_view key);
  // A table of strings, or of arrays of strings.
  std::map<std::string, std::vector<std::string>> TextsMap(absl::string_view key);
  void Within(absl::string_view key, absl::FunctionRef<void(TomlTable&)> read);
  // Each table of an array of tables.
  void ForEach(absl::string_view key, absl::FunctionRef<void(TomlTable&)> read);

  // "file:line" of its beginning.
  std::string Where() const { return absl::StrCat(source_, ":", table_.source().begin.line); }

  // Notes an error at the key, or at the table if it lacks it.
  void Fail(absl::string_view key, absl::string_view what);
  // Notes an error for a key that nobody has read.
  void CheckAllRead();
  const absl::Status& status() const { return status_; }

 private:
  const toml::node* Get(absl::string_view key);
  void FailAt(const toml::node& node, absl::string_view what);

  const toml::table& table_;
  const std::string& source_;
  absl::Status& status_;
  std::set<std::string, std::less<>> read_;
};

}  // namespace refit
