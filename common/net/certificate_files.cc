#include "common/net/certificate_files.h"

#include <fcntl.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <utility>
#include <vector>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "common/certificates/openssl_pointers.h"

namespace refit {
namespace {

constexpr std::chrono::seconds kInterval{1};

Bio Memory(const std::string& pem) { return Bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size()))); }

// A service cannot ask for a passphrase.
int NoPassphrase(char*, int, int, void*) { return -1; }

absl::StatusOr<std::vector<Certificate>> ParseCertificates(const std::string& pem, const std::string& path) {
  const Bio bio = Memory(pem);
  std::vector<Certificate> certificates;
  ERR_clear_error();
  while (X509* certificate = PEM_read_bio_X509(bio.get(), nullptr, NoPassphrase, nullptr)) {
    certificates.emplace_back(certificate);
  }
  const bool at_end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
  ERR_clear_error();
  if (certificates.empty() || !at_end) {
    return absl::InvalidArgumentError(absl::StrCat("'", path, "' has ", certificates.empty() ? "no" : "a damaged",
                                                   " certificate; expected PEM (-----BEGIN CERTIFICATE-----)"));
  }
  return certificates;
}

absl::StatusOr<Key> ParseKey(const std::string& pem, const std::string& path) {
  Key key(PEM_read_bio_PrivateKey(Memory(pem).get(), nullptr, NoPassphrase, nullptr));
  ERR_clear_error();
  if (key != nullptr) return key;
  return absl::InvalidArgumentError(
      absl::StrCat("'", path, "' has no private key that can be read; expected PEM without a passphrase"));
}

std::string Print(const ASN1_TIME* time) {
  const Bio bio(BIO_new(BIO_s_mem()));
  ASN1_TIME_print(bio.get(), time);
  const char* text = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &text);
  return size > 0 ? std::string(text, static_cast<size_t>(size)) : "an unknown time";
}

absl::Status CheckValidNow(const X509& certificate, const std::string& path) {
  const ASN1_TIME* begin = X509_get0_notBefore(&certificate);
  const ASN1_TIME* end = X509_get0_notAfter(&certificate);
  if (X509_cmp_current_time(begin) > 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("the certificate '", path, "' is valid only from ", Print(begin), " on"));
  }
  if (X509_cmp_current_time(end) < 0) {
    return absl::InvalidArgumentError(absl::StrCat("the certificate '", path, "' expired on ", Print(end)));
  }
  return absl::OkStatus();
}

// Without an extended key usage a certificate is for both.
absl::Status CheckPurpose(X509& certificate, const std::string& path, TlsEnd end) {
  const bool serves = end == TlsEnd::kService;
  if (X509_check_purpose(&certificate, serves ? X509_PURPOSE_SSL_SERVER : X509_PURPOSE_SSL_CLIENT, 0) == 1) {
    return absl::OkStatus();
  }
  ERR_clear_error();
  return absl::InvalidArgumentError(absl::StrCat(
      "the certificate '", path, "' is not for ", serves ? "services, so no client" : "clients, so no service",
      " would accept it: its key usage lacks digitalSignature, or its extended key usage ",
      serves ? "serverAuth" : "clientAuth"));
}

absl::StatusOr<std::string> ReadAuthorities(const std::string& path) {
  absl::StatusOr<std::string> pem = ReadSmallFile(path);
  if (!pem.ok()) return pem.status();
  if (absl::Status status = ParseCertificates(*pem, path).status(); !status.ok()) return status;
  return pem;
}

absl::StatusOr<std::string> ReadIdentity(const CertificatePaths& paths) {
  absl::StatusOr<std::string> certificate = ReadSmallFile(paths.certificate);
  if (!certificate.ok()) return certificate.status();
  absl::StatusOr<std::string> key = ReadSecretFile(paths.key);
  if (!key.ok()) return key.status();
  const absl::StatusOr<std::vector<Certificate>> parsed = ParseCertificates(*certificate, paths.certificate);
  if (!parsed.ok()) return parsed.status();
  const absl::StatusOr<Key> parsed_key = ParseKey(*key, paths.key);
  if (!parsed_key.ok()) return parsed_key.status();
  const bool fits = X509_check_private_key(parsed->front().get(), parsed_key->get()) == 1;
  ERR_clear_error();
  if (!fits) {
    return absl::InvalidArgumentError(
        absl::StrCat("the key '", paths.key, "' does not belong to the certificate '", paths.certificate, "'"));
  }
  if (absl::Status status = CheckValidNow(*parsed->front(), paths.certificate); !status.ok()) return status;
  if (absl::Status status = CheckPurpose(*parsed->front(), paths.certificate, paths.end); !status.ok()) return status;
  return absl::StrCat(*certificate, "\n", *key);
}

}  // namespace

CertificateFiles::Copy::~Copy() {
  if (fd_ >= 0) close(fd_);
}

absl::Status CertificateFiles::Copy::Replace(const std::string& contents) {
  const int fresh = memfd_create("refit-certificates", MFD_CLOEXEC);
  if (fresh < 0) return absl::ErrnoToStatus(errno, "memfd_create");
  if (fchmod(fresh, S_IRUSR) != 0 ||
      write(fresh, contents.data(), contents.size()) != static_cast<ssize_t>(contents.size())) {
    close(fresh);
    return absl::ResourceExhaustedError("no memory for a copy of the certificates");
  }
  if (fd_ < 0) {
    fd_ = fresh;
    return absl::OkStatus();
  }
  // A reader that opens the path gets either the old or the new contents.
  const bool replaced = dup3(fresh, fd_, O_CLOEXEC) >= 0;
  close(fresh);
  return replaced ? absl::OkStatus() : absl::ErrnoToStatus(errno, "dup3");
}

std::string CertificateFiles::Copy::path() const { return fd_ < 0 ? "" : absl::StrCat("/proc/self/fd/", fd_); }

CertificateFiles::CertificateFiles(CertificatePaths paths, ReloadReport report)
    : paths_(std::move(paths)), report_(std::move(report)), stamps_(CurrentStamps()) {}

CertificateFiles::~CertificateFiles() {
  {
    const std::lock_guard lock(mutex_);
    ended_ = true;
  }
  ending_.notify_all();
  if (watcher_.joinable()) watcher_.join();
}

absl::StatusOr<std::shared_ptr<CertificateFiles>> CertificateFiles::Load(CertificatePaths paths, ReloadReport report) {
  if (paths.certificate.empty() != paths.key.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("a certificate and its key go together; got only ",
                                                   paths.key.empty() ? "the certificate" : "the key"));
  }
  std::shared_ptr<CertificateFiles> files = absl::WrapUnique(new CertificateFiles(std::move(paths), std::move(report)));
  if (absl::Status status = files->Read(); !status.ok()) return status;
  files->watcher_ = std::thread([&watched = *files] { watched.Watch(); });
  return files;
}

CertificateFiles::Stamps CertificateFiles::CurrentStamps() const {
  return {StampOf(paths_.ca), StampOf(paths_.certificate), StampOf(paths_.key)};
}

absl::Status CertificateFiles::Read() {
  absl::StatusOr<std::string> authorities = paths_.ca.empty() ? "" : ReadAuthorities(paths_.ca);
  if (!authorities.ok()) return authorities.status();
  absl::StatusOr<std::string> identity = paths_.key.empty() ? "" : ReadIdentity(paths_);
  if (!identity.ok()) return identity.status();
  if (!authorities->empty()) {
    if (absl::Status status = authorities_.Replace(*authorities); !status.ok()) return status;
  }
  return identity->empty() ? absl::OkStatus() : identity_.Replace(*identity);
}

void CertificateFiles::Watch() {
  std::unique_lock lock(mutex_);
  while (!ending_.wait_for(lock, kInterval, [this] { return ended_; })) {
    const Stamps stamps = CurrentStamps();
    if (stamps == stamps_) continue;
    stamps_ = stamps;
    const absl::Status status = Read();
    if (report_) report_(status);
  }
}

std::shared_ptr<grpc::experimental::CertificateProviderInterface> CertificateFiles::MakeProvider() const {
  return std::make_shared<grpc::experimental::FileWatcherCertificateProvider>(
      identity_.path(), identity_.path(), authorities_.path(), static_cast<unsigned>(kInterval.count()));
}

}  // namespace refit
