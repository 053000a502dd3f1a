#include "client/cli/options/adapter_options.h"

#include <memory>
#include <utility>
#include <vector>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "client/cli/options/options.h"
#include "common/adapters/adapter_registry.h"
#include "common/adapters/recognise_family.h"

namespace refit::cli {
namespace {

// The names are those of families that are known when the option is read: --adapter-file comes before.
CLI::Validator KnownAdapter() {
  return CLI::Validator(
      [](std::string& text) {
        if (text == kAutoAdapter) return std::string();
        const std::vector<std::string> names = AdapterNames();
        if (absl::c_linear_search(names, text)) return std::string();
        return absl::StrCat("'", Printable(text), "' is not one of ", absl::StrJoin(names, ", "), ", auto");
      },
      "");
}

void SetOption(AdapterChoice& choice, const std::string& text) {
  const std::pair<std::string, std::string> option = absl::StrSplit(text, absl::MaxSplits('=', 1));
  if (option.first.empty() || option.first.size() == text.size()) {
    throw CLI::ValidationError("--adapter-option", absl::StrCat("'", Printable(text), "' is not KEY=VALUE"));
  }
  choice.options[option.first] = option.second;
}

void AddSizeOption(CLI::App* command, AdapterChoice& choice, const std::string& flag, absl::string_view key,
                   const std::string& help, const std::string& group) {
  command
      ->add_option_function<int64_t>(
          flag, [&choice, key = std::string(key)](const int64_t& value) { choice.options[key] = absl::StrCat(value); },
          help)
      ->check(AtLeast(1))
      ->type_name("N")
      ->group(group);
}

}  // namespace

void AddAdapterFileOption(CLI::App* command, const std::string& group) {
  command
      ->add_option_function<std::vector<std::string>>(
          "--adapter-file",
          [](const std::vector<std::string>& paths) {
            for (const std::string& path : paths) {
              const absl::Status status = AddAdapterFile(path);
              if (!status.ok()) throw CLI::ValidationError("--adapter-file", std::string(status.message()));
            }
          },
          "A family of your own, as TOML: common/adapters/families/README.md explains it. Again for another one")
      ->allow_extra_args(false)
      ->type_name("FILE")
      ->group(group);
}

void AddAdapterOptions(CLI::App* command, AdapterChoice& choice, const std::string& group, bool with_experts) {
  AddAdapterFileOption(command, group);
  command
      ->add_option(
          "--adapter", choice.name,
          "How native tensors become Hugging Face tensors: a model family of `refit adapters`; identity leaves "
          "them as they are; auto finds out by their names, and says which it took")
      ->check(KnownAdapter())
      ->type_name("NAME")
      ->capture_default_str()
      ->group(group);
  command
      ->add_option_function<std::vector<std::string>>(
          "--adapter-option",
          [&choice](const std::vector<std::string>& texts) {
            for (const std::string& text : texts) SetOption(choice, text);
          },
          "A choice of the trainer's configuration, as `refit adapters NAME` lists them; again for another one")
      ->allow_extra_args(false)
      ->type_name("KEY=VALUE")
      ->group(group);
  command
      ->add_option_function<std::string>(
          "--activation", [&choice](const std::string& value) { choice.options["activation"] = value; },
          "The experts' activation, for --adapter-option activation=...")
      ->type_name("NAME")
      ->group(group);
  if (with_experts) {
    AddSizeOption(command, choice, "--experts", "experts", "Check that the model has so many routed experts", group);
  }
  AddSizeOption(command, choice, "--expert-width", "expert_width", "Check that an expert is so wide", group);
}

std::string NoteOfAdapter(const AdapterChoice& choice, absl::Span<const TensorSpec> native) {
  std::vector<std::string> notes;
  std::string name = choice.name;
  if (name == kAutoAdapter) {
    const absl::StatusOr<RecognisedFamily> recognised = RecogniseFamily(native);
    if (!recognised.ok()) return "";  // what comes next fails, and says why
    notes.push_back(absl::StrCat("adapter ", recognised->name, ": ", recognised->why));
    name = recognised->name;
  }
  const absl::StatusOr<std::shared_ptr<const Adapter>> adapter = FindAdapter(name, choice.options);
  if (!adapter.ok()) return absl::StrJoin(notes, "; ");
  const absl::StatusOr<VersionPlan> plan = PlanVersion(**adapter, {native.begin(), native.end()}, {});
  if (plan.ok()) {
    for (std::string& miss : NearMisses(name, *plan)) notes.push_back(std::move(miss));
  }
  return absl::StrJoin(notes, "; ");
}

}  // namespace refit::cli
