#include "common/adapters/family_reader.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/adapters/family_binding.h"
#include "common/adapters/name_rewriter.h"
#include "common/adapters/size_expression.h"
#include "common/adapters/toml_table.h"

namespace refit {
namespace {

// Hardware wants some hundreds.
constexpr int64_t kMaxPadding = 1 << 16;

struct MatcherKey {
  const char* key;
  NameMatcher::Kind kind;
};
// In this order; the last one that a rule has says what is replaced.
constexpr MatcherKey kMatchers[] = {
    {"prefix", NameMatcher::Kind::kPrefix}, {"contains", NameMatcher::Kind::kContains},
    {"suffix", NameMatcher::Kind::kSuffix}, {"exact", NameMatcher::Kind::kExact},
    {"regex", NameMatcher::Kind::kRegex},
};

struct TransformKey {
  const char* name;
  Transform transform;
};
constexpr TransformKey kTransforms[] = {
    {"pass", Transform::kPass},
    {"transpose", Transform::kTransposeLastTwo},
    {"first_to_last", Transform::kFirstToLast},
    {"ones", Transform::kOnes},
};

std::vector<NameMatcher> ReadMatchers(TomlTable& table) {
  std::vector<NameMatcher> matchers;
  for (const auto& [key, kind] : kMatchers) {
    if (std::optional<std::string> text = table.Text(key)) matchers.push_back({kind, *std::move(text)});
  }
  return matchers;
}

std::vector<std::string> ReadPatterns(TomlTable& table, const char* key) {
  std::vector<std::string> patterns = table.Texts(key);
  const absl::Status status = AnyOf(patterns).status();
  if (!status.ok()) table.Fail(key, status.message());
  return patterns;
}

SizeExpression ReadSize(TomlTable& table, const char* key) {
  SizeExpression size = table.RequiredText(key);
  const absl::Status status = CheckSizeExpression(size);
  if (!status.ok()) table.Fail(key, status.message());
  return size;
}

Transform ReadTransform(TomlTable& table) {
  const std::string name = table.TextOr("transform", "pass");
  for (const auto& [known, transform] : kTransforms) {
    if (name == known) return transform;
  }
  table.Fail("transform", absl::StrCat("no transform '", name, "'; there are pass, transpose, first_to_last, ones"));
  return Transform::kPass;
}

// What a rule says for all of its outputs.
struct OutputDefaults {
  std::optional<std::string> parts;
  std::string needs;
  std::string native;
};

OutputRule ReadOutput(TomlTable& table, const OutputDefaults& defaults) {
  OutputRule output;
  output.to = table.RequiredText("to");
  output.parts = table.Has("parts") ? table.Text("parts") : defaults.parts;
  output.needs = table.TextOr("needs", defaults.needs.empty() ? output.parts.value_or("") : defaults.needs);
  output.native = table.TextOr("native", defaults.native);
  if (!output.native.empty() && !output.parts.has_value()) table.Fail("native", "'native' belongs to 'parts'");
  output.transform = ReadTransform(table);
  output.shape = table.Texts("shape");
  for (const SizeExpression& size : output.shape) {
    if (absl::Status status = CheckSizeExpression(size); !status.ok()) table.Fail("shape", status.message());
  }
  table.Within("slice", [&](TomlTable& slice) {
    output.slice = SliceRule{static_cast<size_t>(slice.Number("dim").value_or(0)), ReadSize(slice, "begin"),
                             ReadSize(slice, "size")};
  });
  table.Within("pad", [&](TomlTable& pad) {
    output.pad = PadRule{static_cast<size_t>(pad.Number("dim").value_or(0)), pad.Number("multiple").value_or(0)};
    if (output.pad->multiple < 1 || output.pad->multiple > kMaxPadding) {
      pad.Fail("multiple", absl::StrCat("'multiple' is between 1 and ", kMaxPadding));
    }
  });
  if (output.pad.has_value() && (output.transform != Transform::kPass || !output.shape.empty())) {
    table.Fail("pad", "only what passes, and keeps its shape, can be padded");
  }
  if (output.transform == Transform::kOnes && output.shape.empty()) table.Fail("transform", "ones need a shape");
  const bool reads_part = output.slice.has_value();
  if (reads_part && (output.transform == Transform::kOnes || output.transform == Transform::kFirstToLast)) {
    table.Fail("slice", "a slice may only be passed or transposed");
  }
  return output;
}

void CheckEachExpert(TomlTable& table, const FamilyRule& rule) {
  for (const OutputRule& output : rule.outputs) {
    const bool plain = output.transform == Transform::kPass || output.transform == Transform::kTransposeLastTwo;
    if (!plain || !output.shape.empty()) {
      table.Fail("each_expert", "an expert may only be passed or transposed, and keeps its shape");
    }
    if (output.slice.has_value() && output.slice->dimension == 0) {
      table.Fail("each_expert", "dimension 0 counts the experts, and cannot be cut");
    }
  }
  if (rule.rank.value_or(0) < 2) table.Fail("each_expert", "each_expert needs a rank of at least 2");
}

FamilyRule ReadRule(TomlTable& table) {
  FamilyRule rule;
  rule.where = table.Where();
  rule.when = ReadMatchers(table);
  if (rule.when.empty()) table.Fail("to", "a rule needs one of prefix, contains, suffix, exact, regex");
  rule.only = table.TextsMap("only");
  if (const std::optional<int64_t> rank = table.Number("rank")) rule.rank = static_cast<size_t>(*rank);
  const std::string other_ranks = table.TextOr("other_ranks", "error");
  if (other_ranks != "error" && other_ranks != "pass") table.Fail("other_ranks", "'other_ranks' is error or pass");
  rule.other_ranks_pass = other_ranks == "pass";
  if (rule.other_ranks_pass && !rule.rank.has_value()) table.Fail("other_ranks", "'other_ranks' needs a rank");
  rule.each_expert = table.Flag("each_expert");
  rule.experts = table.Flag("experts") || rule.each_expert;
  if (table.Has("width")) rule.width = ReadSize(table, "width");
  const bool drops = table.Flag("drop");
  if (table.Has("outputs")) {
    const OutputDefaults defaults = {table.Text("parts"), table.TextOr("needs", ""), table.TextOr("native", "")};
    table.ForEach("outputs", [&](TomlTable& output) { rule.outputs.push_back(ReadOutput(output, defaults)); });
  } else if (!drops) {
    rule.outputs.push_back(ReadOutput(table, {}));
  }
  if (rule.each_expert) CheckEachExpert(table, rule);
  for (const OutputRule& output : rule.outputs) {
    if (!rule.experts || !output.pad.has_value() || output.pad->dimension != 0) continue;
    table.Fail("pad", "dimension 0 counts the experts, and cannot be padded");
  }
  return rule;
}

RenameRule ReadRename(TomlTable& table) {
  RenameRule rename;
  rename.where = table.Where();
  const std::vector<NameMatcher> find = ReadMatchers(table);
  if (find.size() != 1) table.Fail("to", "a rename needs exactly one of prefix, contains, suffix, exact, regex");
  if (!find.empty()) rename.find = find.front();
  rename.to = table.RequiredText("to");
  rename.back = table.TextOr("back", "");
  rename.only = table.TextsMap("only");
  return rename;
}

FamilyOption ReadOption(TomlTable& table) {
  FamilyOption option;
  option.name = table.RequiredText("name");
  option.help = table.RequiredText("help");
  for (std::string& value : table.Texts("values")) option.values.push_back({std::move(value), {}});
  if (option.values.empty()) table.Fail("values", "an option needs values");
  table.Within("sets", [&](TomlTable& sets) {
    for (FamilyOption::Value& value : option.values) value.variables = sets.TextMap(value.name);
  });
  return option;
}

Family::ExcludeStage ReadExcludeStage(TomlTable& table) {
  const std::string name = table.TextOr("exclude", "hf");
  for (const auto stage : {Family::ExcludeStage::kNative, Family::ExcludeStage::kHf, Family::ExcludeStage::kNever}) {
    if (name == ExcludeStageName(stage)) return stage;
  }
  table.Fail("exclude", "'exclude' is native, hf or never");
  return Family::ExcludeStage::kHf;
}

// Reads the tables of one file.
class Reader {
 public:
  Reader(std::string source, SharedRules shared) : source_(std::move(source)), shared_(shared) {}

  absl::StatusOr<std::shared_ptr<const Family>> Run(absl::string_view text) {
    const toml::parse_result parsed = Parse(text, source_);
    if (!status_.ok()) return status_;
    TomlTable table(parsed.table(), source_, status_);
    ReadHead(table);
    table.ForEach("option", [&](TomlTable& option) { family_.options.push_back(ReadOption(option)); });
    table.ForEach("rule", [&](TomlTable& rule) { ReadRuleOrShared(rule); });
    table.ForEach("rename", [&](TomlTable& rename) { family_.renames.push_back(ReadRename(rename)); });
    table.Within("signs", [&](TomlTable& signs) {
      family_.signs = FamilySigns{ReadPatterns(signs, "all"), ReadPatterns(signs, "none"), signs.TextOr("unsure", "")};
    });
    table.CheckAllRead();
    if (!status_.ok()) return status_;
    if (absl::Status status = CheckBinds(); !status.ok()) return status;
    return std::make_shared<const Family>(std::move(family_));
  }

 private:
  toml::parse_result Parse(absl::string_view text, const std::string& source) {
    toml::parse_result parsed = toml::parse(std::string_view(text.data(), text.size()));
    if (!parsed && status_.ok()) {
      const std::string_view what = parsed.error().description();
      status_ = absl::InvalidArgumentError(absl::StrCat(source, ":", parsed.error().source().begin.line, ": ",
                                                        absl::string_view(what.data(), what.size())));
    }
    return parsed;
  }

  void ReadHead(TomlTable& table) {
    family_.name = table.RequiredText("name");
    const auto is_letter = [](char c) { return absl::ascii_isalnum(c) || c == '_' || c == '-' || c == '.'; };
    if (!family_.name.empty() && !std::all_of(family_.name.begin(), family_.name.end(), is_letter)) {
      table.Fail("name", "a name has letters, digits, '_', '-' and '.'");
    }
    family_.title = table.TextOr("title", family_.name);
    family_.models = table.Texts("models");
    family_.engines = table.TextOr("engines", "");
    family_.not_covered = table.TextOr("not_covered", "");
    family_.variables = table.TextMap("variables");
    family_.exclude = ReadExcludeStage(table);
    const std::string by = table.TextOr("exclude_by", "match");
    if (by != "match" && by != "search") table.Fail("exclude_by", "'exclude_by' is match or search");
    family_.exclude_searches = by == "search";
    family_.f32 = ReadPatterns(table, "f32");
    family_.keep_dtype = ReadPatterns(table, "keep_dtype");
  }

  // A family's own option of this name comes before that of rules that it shares.
  void AddOption(FamilyOption option) {
    for (const FamilyOption& known : family_.options) {
      if (known.name == option.name) return;
    }
    family_.options.push_back(std::move(option));
  }

  void ReadRuleOrShared(TomlTable& table) {
    if (!table.Has("use")) return family_.rules.push_back(ReadRule(table));
    const std::string name = table.RequiredText("use");
    const std::map<std::string, std::string> variables = table.TextMap("with");
    const std::map<std::string, std::vector<std::string>> only = table.TextsMap("only");
    const std::vector<NameMatcher> when = ReadMatchers(table);
    const std::optional<absl::string_view> text = shared_(name);
    if (!text.has_value()) return table.Fail("use", absl::StrCat("there are no shared rules '", name, "'"));
    const std::string source = absl::StrCat(name, ".toml");
    const toml::parse_result parsed = Parse(*text, source);
    if (!status_.ok()) return;
    TomlTable rules(parsed.table(), source, status_);
    rules.ForEach("option", [&](TomlTable& option) { AddOption(ReadOption(option)); });
    rules.ForEach("rule", [&](TomlTable& rule) {
      FamilyRule next = ReadRule(rule);
      next.when.insert(next.when.begin(), when.begin(), when.end());
      next.only.insert(only.begin(), only.end());
      next.variables = variables;
      family_.rules.push_back(std::move(next));
    });
    rules.CheckAllRead();
  }

  // Tries each value of each option, so that what is wrong shows here.
  absl::Status CheckBinds() const {
    if (absl::Status status = Bind(family_, {}).status(); !status.ok()) return status;
    for (const FamilyOption& option : family_.options) {
      for (const FamilyOption::Value& value : option.values) {
        const absl::Status status = Bind(family_, {{option.name, value.name}}).status();
        if (!status.ok()) return status;
      }
    }
    return absl::OkStatus();
  }

  const std::string source_;
  const SharedRules shared_;
  absl::Status status_;
  Family family_;
};

}  // namespace

absl::string_view ExcludeStageName(Family::ExcludeStage stage) {
  switch (stage) {
    case Family::ExcludeStage::kNative:
      return "native";
    case Family::ExcludeStage::kHf:
      return "hf";
    case Family::ExcludeStage::kNever:
      return "never";
  }
  return "";
}

absl::StatusOr<std::shared_ptr<const Family>> ReadFamily(absl::string_view text, const std::string& source,
                                                         SharedRules shared) {
  return Reader(source, shared).Run(text);
}

}  // namespace refit
