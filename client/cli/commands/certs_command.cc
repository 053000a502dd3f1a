// `refit certs`: makes test certificates for mutual TLS and roles.
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "client/cli/options/options.h"
#include "client/cli/terminal/json.h"
#include "common/certificates/certificate_folder.h"

namespace refit::cli {
namespace {

struct CertsFlags {
  CommonOptions common;
  std::string folder;
  std::vector<std::string> hosts;
  int64_t days = 30;
};

void PrintNextSteps(absl::string_view folder) {
  while (folder.size() > 1 && absl::ConsumeSuffix(&folder, "/")) continue;
  const std::string dir(folder);
  std::printf(
      "Next, the service and a client:\n\n"
      "  refit-server --listen 0.0.0.0:50051 --tls-cert %s/server.pem --tls-key %s/server.key \\\n"
      "    --tls-client-ca %s/ca.pem --roles %s/roles\n"
      "  refit status --server localhost:50051 --tls-ca %s/ca.pem --tls-cert %s/viewer.pem --tls-key %s/viewer.key\n\n"
      "Trainers push with trainer.pem, workers pull with worker.pem, relays do with relay.pem. Give each machine its\n"
      "own pair and ca.pem only.\n"
      "The authority's key was not kept: nothing more can be signed by it. For real use take certificates of your "
      "own.\n",
      dir.c_str(), dir.c_str(), dir.c_str(), dir.c_str(), dir.c_str(), dir.c_str(), dir.c_str());
}

absl::Status RunCerts(const CertsFlags& flags) {
  CertificateFolderOptions options;
  options.hosts = flags.hosts;
  options.valid_for = std::chrono::hours(24 * flags.days);
  const absl::StatusOr<std::vector<std::string>> names = MakeCertificateFolder(flags.folder, options);
  if (!names.ok()) return names.status();
  if (flags.common.json) {
    PrintJson({{"folder", flags.folder}, {"files", *names}});
  } else if (!flags.common.quiet) {
    std::printf("%s: %s; valid for %lld days\n", flags.folder.c_str(), absl::StrJoin(*names, ", ").c_str(),
                static_cast<long long>(flags.days));
    PrintNextSteps(flags.folder);
  }
  return absl::OkStatus();
}

}  // namespace

void AddCertsCommand(CLI::App& app, Invocation& invocation) {
  constexpr int64_t kMostDays = 3650;
  const auto flags = std::make_shared<CertsFlags>();
  CLI::App* command = AddCommand(app, invocation, "certs", "Make throw-away certificates, to try mutual TLS and roles",
                                 "Examples:\n"
                                 "  refit certs certs/\n"
                                 "  refit certs certs/ --host trainer-0.example.org --host 10.0.0.7\n",
                                 [flags] { return RunCerts(*flags); });
  command->add_option("DIR", flags->folder, "Folder for the files; nothing in it is overwritten")
      ->required()
      ->type_name("");
  command
      ->add_option("--host", flags->hosts,
                   "Name or address of the service, besides localhost, 127.0.0.1 and ::1; may be repeated")
      ->type_name("NAME");
  command->add_option("--days", flags->days, "How long they are valid")
      ->check(CLI::Range(int64_t{1}, kMostDays))
      ->type_name("N")
      ->capture_default_str();
  AddOutputOptions(command, flags->common);
}

}  // namespace refit::cli
