#include "client/cli/options.h"

#include <memory>
#include <string>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "client/cli/exit_code.h"

namespace refit::cli {
namespace {

const char kOutputGroup[] = "Output";
const char kServiceGroup[] = "Service";
constexpr double kTenYears = 10 * 365.25 * 86400;

std::string NotA(const std::string& what, const std::string& text) { return absl::StrCat("'", text, "' is no ", what); }

}  // namespace

ChannelOptions CommonOptions::Channel() const {
  ChannelOptions channel;
  channel.address = server;
  channel.connect_timeout = std::chrono::milliseconds(static_cast<int64_t>(connect_timeout_seconds * 1000));
  return channel;
}

CLI::App* AddCommand(CLI::App& app, Invocation& invocation, const std::string& name, const std::string& summary,
                     const std::string& footer, std::function<absl::Status()> run) {
  CLI::App* command = app.add_subcommand(name, summary);
  command->footer(absl::StrCat(footer, "\n", kExitCodeHelp));
  command->final_callback([&invocation, name, run = std::move(run)] { invocation = {name, run, ExitCode}; });
  return command;
}

void AddOutputOptions(CLI::App* command, CommonOptions& options) {
  command->add_flag("--json", options.json, "For scripts: stdout holds JSON and nothing else")->group(kOutputGroup);
  command->add_flag("-q,--quiet", options.quiet, "No progress, no summary; errors and asked-for data only")
      ->group(kOutputGroup);
}

void AddServerOptions(CLI::App* command, CommonOptions& options) {
  command->add_option("-s,--server", options.server, "Address of the service, host:port or unix:/path")
      ->envname("REFIT_SERVER")
      ->type_name("ADDR")
      ->capture_default_str()
      ->group(kServiceGroup);
  command->add_option("--connect-timeout", options.connect_timeout_seconds, "How long to try to reach it")
      ->check(Seconds())
      ->type_name("SECONDS")
      ->capture_default_str()
      ->group(kServiceGroup);
  AddOutputOptions(command, options);
}

void AddModelOption(CLI::App* command, CommonOptions& options) {
  command->add_option("-m,--model", options.model, "Name of the model; a service may hold several")
      ->type_name("NAME")
      ->capture_default_str()
      ->group(kServiceGroup);
}

void AddModelFilter(CLI::App* command, CommonOptions& options) {
  options.model.clear();
  command->add_option("-m,--model", options.model, "Only this model")->type_name("NAME")->group(kServiceGroup);
}

CLI::Validator VersionOrLatest() {
  return CLI::Validator(
      [](std::string& text) {
        uint64_t number = 0;
        const bool good = text == "latest" || (absl::SimpleAtoi(text, &number) && number > 0);
        return good ? std::string() : NotA("version: a positive number or 'latest' is expected", text);
      },
      "");
}

CLI::Validator Seconds() {
  return CLI::Validator(
      [](std::string& text) {
        double seconds = 0;
        const bool good = absl::SimpleAtod(text, &seconds) && seconds >= 0 && seconds <= kTenYears;
        return good ? std::string() : NotA("number of seconds", text);
      },
      "");
}

std::optional<uint64_t> ParseVersion(const std::string& text) {
  uint64_t number = 0;
  if (!absl::SimpleAtoi(text, &number)) return std::nullopt;
  return number;
}

v1::VersionSelector SelectVersion(const std::string& text) {
  v1::VersionSelector selector;
  if (const std::optional<uint64_t> number = ParseVersion(text)) {
    selector.set_number(*number);
  } else {
    selector.set_latest_committed(true);
  }
  return selector;
}

}  // namespace refit::cli
