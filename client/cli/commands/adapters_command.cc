// `refit adapters`: the model families that this program converts.
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/cli/options/adapter_options.h"
#include "client/cli/options/options.h"
#include "client/cli/terminal/json.h"
#include "client/cli/terminal/table.h"
#include "common/adapters/adapter_registry.h"

namespace refit::cli {
namespace {

struct AdaptersFlags {
  CommonOptions common;
  std::string name;
};

nlohmann::json OptionJson(const FamilyOption& option) {
  std::vector<std::string> values;
  for (const FamilyOption::Value& value : option.values) values.push_back(value.name);
  return {{"name", option.name}, {"help", option.help}, {"values", values}};
}

nlohmann::json FamilyJson(const Family& family) {
  nlohmann::json options = nlohmann::json::array();
  for (const FamilyOption& option : family.options) options.push_back(OptionJson(option));
  return {{"name", family.name},
          {"title", family.title},
          {"models", family.models},
          {"engines", family.engines},
          {"not_covered", family.not_covered},
          {"options", options},
          {"exclude", std::string(ExcludeStageName(family.exclude))},
          {"keep_dtype", family.keep_dtype},
          {"f32", family.f32}};
}

void PrintFamily(const Family& family) {
  Facts facts;
  const auto add = [&](const char* what, const std::string& text) {
    if (!text.empty()) facts.Add(what, text);
  };
  add("adapter", absl::StrCat(family.name, ": ", family.title));
  add("models", absl::StrJoin(family.models, ", "));
  add("engines", family.engines);
  add("not covered", family.not_covered);
  add("never cast", absl::StrJoin(family.keep_dtype, "  "));
  add("become F32", absl::StrJoin(family.f32, "  "));
  add("exclude", absl::StrCat("matched with ", ExcludeStageName(family.exclude), " names"));
  for (const FamilyOption& option : family.options) {
    const auto values = OptionJson(option)["values"].get<std::vector<std::string>>();
    add("option", absl::StrCat(option.name, "=", absl::StrJoin(values, "|"), ": ", option.help));
  }
  add("option", "experts=N, expert_width=N: checked against shapes");
  facts.Print(stdout);
}

absl::Status RunAdapters(const AdaptersFlags& flags) {
  nlohmann::json all = nlohmann::json::array();
  Table table({{"adapter"}, {"family"}, {"models"}});
  for (const std::shared_ptr<const Family>& family : KnownFamilies()) {
    if (!flags.name.empty() && family->name != flags.name) continue;
    all.push_back(FamilyJson(*family));
    table.AddRow({family->name, family->title, absl::StrJoin(family->models, ", ")});
    if (!flags.name.empty() && !flags.common.json) PrintFamily(*family);
  }
  if (all.empty()) {
    return absl::NotFoundError(
        absl::StrCat("no adapter '", Printable(flags.name), "'; known are ", absl::StrJoin(AdapterNames(), ", ")));
  }
  if (flags.common.json) {
    PrintJson(flags.name.empty() ? nlohmann::json{{"adapters", all}} : all.front());
  } else if (flags.name.empty()) {
    table.Print(stdout);
  }
  return absl::OkStatus();
}

}  // namespace

void AddAdaptersCommand(CLI::App& app, Invocation& invocation) {
  const auto flags = std::make_shared<AdaptersFlags>();
  CLI::App* command = AddCommand(app, invocation, "adapters", "List the model families that are converted",
                                 "What --adapter may name: how each family's native tensors become Hugging Face "
                                 "tensors, and its options. They are those of this program; `refit status` lists the "
                                 "service's.\n\n"
                                 "Examples:\n"
                                 "  refit adapters\n"
                                 "  refit adapters qwen3_moe\n",
                                 [flags] { return RunAdapters(*flags); });
  command->add_option("NAME", flags->name, "All of one adapter")->type_name("");
  AddAdapterFileOption(command, "");
  AddOutputOptions(command, flags->common);
}

}  // namespace refit::cli
