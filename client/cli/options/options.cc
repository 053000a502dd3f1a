#include "client/cli/options/options.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/cli/terminal/status_lines.h"
#include "common/net/address.h"

namespace refit::cli {
namespace {

const char kOutputGroup[] = "Output";
const char kServiceGroup[] = "Service";
const char kSecurityGroup[] = "Security (files are read again when they change)";
constexpr double kTenYears = 10 * 365.25 * 86400;

// A validator that adds nothing to the help text.
CLI::Validator Check(const std::string& expected, std::function<bool(const std::string&)> is_good) {
  return CLI::Validator(
      [expected, is_good = std::move(is_good)](std::string& text) {
        return is_good(text) ? std::string() : absl::StrCat("'", text, "' is not ", expected);
      },
      "");
}

constexpr char kServerVariable[] = "REFIT_SERVER";

// Accepts what `check` accepts. It may come from the environment; the error says so then.
CLI::Validator ServiceAddress(absl::Status (*check)(absl::string_view)) {
  return CLI::Validator(
      [check](std::string& text) {
        const absl::Status status = check(text);
        if (status.ok()) return std::string();
        const char* variable = std::getenv(kServerVariable);
        const bool from_environment = variable != nullptr && text == variable;
        return absl::StrCat(status.message(), from_environment ? " (from the environment: REFIT_SERVER)" : "");
      },
      "");
}

struct SecurityOption {
  const char* name;
  const char* variable;
  std::string ClientSecurity::*value;
  const char* type;
  const char* help;
};

constexpr SecurityOption kSecurityOptions[] = {
    {"--tls-ca", "REFIT_TLS_CA", &ClientSecurity::ca, "FILE",
     "Connect over TLS to services whose certificate this authority has signed"},
    {"--tls-cert", "REFIT_TLS_CERT", &ClientSecurity::certificate, "FILE", "Mutual TLS: our certificate"},
    {"--tls-key", "REFIT_TLS_KEY", &ClientSecurity::key, "FILE", "Its key; closed to others (chmod 600)"},
    {"--tls-server-name", "REFIT_TLS_SERVER_NAME", &ClientSecurity::server_name, "NAME",
     "Name that the service's certificate must carry, if it is not the address's host"},
    {"--token-file", "REFIT_TOKEN_FILE", &ClientSecurity::token_file, "FILE",
     "File with a bearer token that every call carries; closed to others"},
};

void AddSecurityOptions(CLI::App* command, ClientSecurity& security) {
  for (const SecurityOption& option : kSecurityOptions) {
    command
        ->add_option(option.name, security.*option.value, absl::StrCat(option.help, " (or from ", option.variable, ")"))
        ->envname(option.variable)
        ->type_name(option.type)
        ->group(kSecurityGroup);
  }
}

}  // namespace

void WarnOfReload(const absl::Status& status) {
  if (status.ok()) return;
  SayOnStderr(absl::StrCat("refit: warning: the old credentials stay in use: ", status.message()));
}

CLI::App* AddCommand(CLI::App& app, Invocation& invocation, const std::string& name, const std::string& summary,
                     const std::string& footer, std::function<absl::Status()> run,
                     std::function<int(const absl::Status&)> exit_code) {
  CLI::App* command = app.add_subcommand(name, summary);
  command->footer(absl::StrCat(footer, "\n", kExitCodeHelp));
  command->final_callback(
      [&invocation, invoked = Invocation{name, std::move(run), std::move(exit_code)}] { invocation = invoked; });
  return command;
}

void AddOutputOptions(CLI::App* command, CommonOptions& options) {
  command->add_flag("--json", options.json, "For scripts: stdout holds JSON and nothing else")->group(kOutputGroup);
  command->add_flag("-q,--quiet", options.quiet, "No progress, no summary; errors and asked-for data only")
      ->group(kOutputGroup);
}

namespace {

void AddServer(CLI::App* command, CommonOptions& options, const std::string& type, const std::string& help,
               absl::Status (*check)(absl::string_view)) {
  command->add_option("-s,--server", options.server, help)
      ->envname(kServerVariable)
      ->check(ServiceAddress(check))
      ->type_name(type)
      ->capture_default_str()
      ->group(kServiceGroup);
}

void AddConnectionOptions(CLI::App* command, CommonOptions& options) {
  AddSecurityOptions(command, options.security);
  command->add_option("--connect-timeout", options.connect_timeout_seconds, "How long to try to reach it")
      ->check(Seconds())
      ->type_name("SECONDS")
      ->capture_default_str()
      ->group(kServiceGroup);
  AddOutputOptions(command, options);
}

}  // namespace

void AddServerOptions(CLI::App* command, CommonOptions& options) {
  AddServer(command, options, "ADDR", "Address of the service, host:port or unix:/path (or from REFIT_SERVER)",
            CheckOneAddress);
  AddConnectionOptions(command, options);
}

void AddServersOptions(CLI::App* command, CommonOptions& options) {
  AddServer(command, options, "ADDR[,ADDR...]",
            "Address of the service, host:port or unix:/path (or from REFIT_SERVER). Of several services with the same "
            "versions the first is used; when one is down, too busy or behind, the next, from where it was. "
            "dns:///NAME:PORT stands for all addresses of the name",
            CheckAddresses);
  command
      ->add_option("--zone", options.zone,
                   "Where this worker is: of several services, those of this zone (refit-server --zone) come first (or "
                   "from REFIT_ZONE)")
      ->envname("REFIT_ZONE")
      ->type_name("NAME")
      ->group(kServiceGroup);
  AddConnectionOptions(command, options);
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

CLI::Validator AtLeast(int64_t least) {
  return Check(absl::StrCat("a whole number of at least ", least), [least](const std::string& text) {
    // Integers of 64 bits, with or without a sign: most options are such.
    int64_t number = 0;
    uint64_t unsigned_number = 0;
    return absl::SimpleAtoi(text, &number) ? number >= least : absl::SimpleAtoi(text, &unsigned_number);
  });
}

CLI::Validator VersionOrLatest() {
  return Check("a version: a positive number or 'latest'", [](const std::string& text) {
    uint64_t number = 0;
    return text == "latest" || (absl::SimpleAtoi(text, &number) && number > 0);
  });
}

CLI::Validator Seconds() {
  return Check("a number of seconds", [](const std::string& text) {
    double seconds = 0;
    return absl::SimpleAtod(text, &seconds) && seconds >= 0 && seconds <= kTenYears;
  });
}

CLI::Validator Fraction() {
  return Check("a fraction from 0 to 1, such as 0.01 for 1 %", [](const std::string& text) {
    double fraction = 0;
    return absl::SimpleAtod(text, &fraction) && fraction >= 0 && fraction <= 1;
  });
}

CLI::Validator OneOf(const std::vector<std::string>& words) {
  return Check(absl::StrCat("one of ", absl::StrJoin(words, ", ")),
               [words](const std::string& text) { return std::find(words.begin(), words.end(), text) != words.end(); });
}

CLI::Option* AddDTypeOption(CLI::App* command, const std::string& name, const std::vector<DType>& allowed,
                            std::function<void(DType)> set, const std::string& help) {
  const auto parse = [allowed](const std::string& text) -> std::optional<DType> {
    const absl::StatusOr<DType> dtype = ParseDType(text);
    if (!dtype.ok() || std::find(allowed.begin(), allowed.end(), *dtype) == allowed.end()) return std::nullopt;
    return *dtype;
  };
  const auto names = [&](const char* separator) {
    return absl::StrJoin(allowed, separator, [](std::string* out, DType dtype) { absl::StrAppend(out, Name(dtype)); });
  };
  return command
      ->add_option_function<std::string>(
          name, [parse, set = std::move(set)](const std::string& text) { set(*parse(text)); }, help)
      ->check(Check(absl::StrCat("one of ", names(", ")),
                    [parse](const std::string& text) { return parse(text).has_value(); }))
      ->type_name(names("|"));
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
