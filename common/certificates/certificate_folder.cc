#include "common/certificates/certificate_folder.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "common/certificates/certificate_authority.h"

namespace refit {
namespace {

struct NewFile {
  std::string name;
  std::string contents;
  bool is_secret = false;
};

void Add(std::vector<NewFile>& files, const std::string& name, IssuedCertificate issued) {
  files.push_back({name + ".pem", std::move(issued.certificate)});
  files.push_back({name + ".key", std::move(issued.key), /*is_secret=*/true});
}

absl::StatusOr<std::vector<NewFile>> MakeFiles(const CertificateFolderOptions& options) {
  absl::StatusOr<CertificateAuthority> authority =
      CertificateAuthority::Create("refit throw-away authority", options.valid_for);
  if (!authority.ok()) return authority.status();
  std::vector<NewFile> files = {{"ca.pem", authority->certificate()}};
  CertificateRequest server{.common_name = "refit-server", .is_server = true, .valid_until = options.valid_for};
  server.hosts = {"localhost", "127.0.0.1", "::1"};
  server.hosts.insert(server.hosts.end(), options.hosts.begin(), options.hosts.end());
  absl::StatusOr<IssuedCertificate> issued = authority->Issue(server);
  if (!issued.ok()) return issued.status();
  Add(files, "server", *std::move(issued));
  std::string roles = "# role, and the name in the certificate that has it\n";
  for (const char* role : kCertificateRoles) {
    issued = authority->Issue({.common_name = role, .valid_until = options.valid_for});
    if (!issued.ok()) return issued.status();
    Add(files, role, *std::move(issued));
    absl::StrAppend(&roles, role, " ", role, "\n");
  }
  files.push_back({"roles", std::move(roles)});
  return files;
}

}  // namespace

absl::Status WriteNewFile(const std::string& path, absl::string_view contents, bool is_secret) {
  const mode_t mode = is_secret ? S_IRUSR | S_IWUSR : S_IRUSR | S_IWUSR | S_IRGRP | S_IROTH;
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
  if (fd < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot write '", path, "'"));
  const absl::Cleanup closed = [fd] { close(fd); };
  while (!contents.empty()) {
    const ssize_t written = write(fd, contents.data(), contents.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot write '", path, "'"));
    contents.remove_prefix(static_cast<size_t>(written));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> MakeCertificateFolder(const std::string& folder,
                                                               const CertificateFolderOptions& options) {
  const absl::StatusOr<std::vector<NewFile>> files = MakeFiles(options);
  if (!files.ok()) return files.status();
  if (mkdir(folder.c_str(), S_IRWXU) != 0 && errno != EEXIST) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot make the folder '", folder, "'"));
  }
  for (const NewFile& file : *files) {
    const std::string path = absl::StrCat(folder, "/", file.name);
    struct stat found = {};
    if (lstat(path.c_str(), &found) != 0) continue;
    return absl::AlreadyExistsError(
        absl::StrCat("'", path, "' is there already, and is not overwritten; nothing was written"));
  }
  std::vector<std::string> names;
  for (const NewFile& file : *files) {
    absl::Status status = WriteNewFile(absl::StrCat(folder, "/", file.name), file.contents, file.is_secret);
    if (!status.ok()) return status;
    names.push_back(file.name);
  }
  return names;
}

}  // namespace refit
